"""Operators' words of KFL, as `--macros` gives them: a JSON object, or a file with one.

Scheduler, query service and command line read them here, so that what is wrong is said at the
start, the same everywhere.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

HELP = 'Words to add to KFL: a JSON object as {"https": "tls and http"}, or a file with one.'

MAX_FILE_BYTES = 1 << 20
"""A file of words is a page of text; something larger was named by mistake."""


def read(value: object) -> dict[str, str]:
    """Return the words in a JSON object, in the file that a text names, or in a mapping.

    Raises ValueError with a sentence for each thing that is wrong.
    """
    from kfl.macros import problems  # not needed by who has no words

    if isinstance(value, str | Path):
        text = str(value).strip()
        value = _parsed(text) if not text or text[0] in "{[" else _of_file(Path(text))
    if not isinstance(value, Mapping):
        raise ValueError(f"Words of KFL are a JSON object, not {type(value).__name__}.")
    wrong = [
        f"The word {name!r} stands for {text!r}; it must stand for a text."
        for name, text in value.items()
        if not isinstance(text, str)
    ]
    wrong = wrong or problems(value)
    if wrong:
        raise ValueError(" ".join(wrong))
    return dict(value)


def written(macros: Mapping[str, str]) -> str:
    """Return the words as read() takes them."""
    return json.dumps(dict(macros))


def _of_file(path: Path) -> Any:
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_FILE_BYTES + 1)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"Cannot read the words of KFL in {str(path)[:200]!r}: "
            f"{getattr(error, 'strerror', error)}. A JSON object begins with a brace."
        ) from None
    if len(raw) > MAX_FILE_BYTES:
        raise ValueError(f"The file of words {path} is larger than {MAX_FILE_BYTES} octets.")
    try:
        return _parsed(raw.decode("utf-8-sig"))
    except ValueError as error:
        raise ValueError(f"In the file {path}: {error}") from None


def _parsed(text: str) -> Any:
    if not text.strip():
        return {}
    try:
        return json.loads(text, object_pairs_hook=_once)
    except (json.JSONDecodeError, RecursionError) as error:
        reason = getattr(error, "msg", "it is nested too deeply")
        line, column = getattr(error, "lineno", 1), getattr(error, "colno", 1)
        raise ValueError(
            f"The words of KFL are not JSON: {reason} at line {line}, column {column}."
        ) from None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"The word {twice!r} is given twice.")
    return found
