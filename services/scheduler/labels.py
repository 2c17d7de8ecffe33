"""Labels of jobs, as Kubernetes has them, and selectors over them. listing.py and jobspecs.py ask.

https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/
"""

import re
from collections.abc import Callable, Mapping

MOST_LABELS = 64
"""Of a job; whoever has more wants something else than labels."""

LONGEST_SELECTOR = 4096
"""Characters; what a person or a program writes is much shorter."""

_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?", re.ASCII)
_PART = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?", re.ASCII)
_LONGEST_PREFIX = 253
_TERM = re.compile(r"\s*(!)?\s*([^\s=!,]+)\s*(?:(==|=|!=)\s*([^\s=!,]*)\s*)?", re.ASCII)

Selector = Callable[[Mapping[str, str]], bool]


def check(labels: Mapping[str, str]) -> None:
    """Raise ValueError with a sentence unless Kubernetes would take these labels."""
    if len(labels) > MOST_LABELS:
        raise ValueError(f"There are {len(labels)} labels; at most {MOST_LABELS} are taken.")
    for key, value in labels.items():
        _check_key(key)
        _check_value(key, value)


def selector(text: str) -> Selector:
    """Return what tells whether labels fit "a=b,c!=d,e,!f"; all of it has to. "" fits any.

    As in Kubernetes, c!=d fits also where there is no c. Raises ValueError with a sentence.
    """
    if len(text) > LONGEST_SELECTOR:
        raise ValueError(f"A selector has at most {LONGEST_SELECTOR} characters.")
    terms = [_term(part) for part in text.split(",")] if text.strip() else []
    return lambda labels: all(term(labels) for term in terms)


def _term(text: str) -> Selector:
    match = _TERM.fullmatch(text)
    if match is None or (match[1] and match[3]):
        raise ValueError(
            f"{text.strip()[:80]!a} selects no labels; write name=value, name!=value, name, or "
            "!name, with commas between."
        )
    key, value = match[2], match[4] or ""
    _check_key(key)
    _check_value(key, value)
    if match[1]:
        return lambda labels: key not in labels
    if match[3] is None:
        return lambda labels: key in labels
    if match[3] == "!=":
        return lambda labels: labels.get(key) != value
    return lambda labels: labels.get(key) == value


def _check_key(key: str) -> None:
    prefix, slash, name = key.rpartition("/")
    is_prefix = not slash or (
        len(prefix) <= _LONGEST_PREFIX and all(_PART.fullmatch(p) for p in prefix.split("."))
    )
    if not is_prefix or not _NAME.fullmatch(name):
        raise ValueError(
            f"{key[:80]!a} is not the name of a label; it is 1 to 63 letters, digits, '-', '_' and "
            "'.', begins and ends with a letter or digit, and may have a DNS name and '/' before."
        )


def _check_value(key: str, value: str) -> None:
    if value and not _NAME.fullmatch(value):
        raise ValueError(
            f"{value[:80]!a} is not a value of the label {key}; it is empty, or 1 to 63 letters, "
            "digits, '-', '_' and '.', and begins and ends with a letter or digit."
        )
