"""The names of recordings, checked before a path or a statement is made from one."""

import re

LONGEST = 63
"""So that a name fits wherever Kubernetes wants a DNS label, and is far from any path limit."""

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}", re.ASCII)


def check(name: str) -> str:
    """Return `name` when it may name a recording; raise ValueError with a sentence when not.

    A name has 1 to 63 of a-z, 0-9, _ and -, and begins with a letter or a digit.
    """
    if _NAME.fullmatch(name):
        return name
    shown = ascii(name[: LONGEST + 1]) + ("…" if len(name) > LONGEST + 1 else "")
    if not name:
        raise ValueError(
            "The name of a recording is empty; give one like checkout-500s: "
            "1 to 63 of a-z, 0-9, _ and -, beginning with a letter or a digit."
        )
    raise ValueError(
        f"{shown} cannot name a recording: {_what_is_wrong(name)} "
        "Use 1 to 63 of a-z, 0-9, _ and -, beginning with a letter or a digit."
    )


def _what_is_wrong(name: str) -> str:
    if len(name) > LONGEST:
        return f"it has {len(name)} characters."
    for position, character in enumerate(name, 1):
        if not _NAME.fullmatch("0" + character):
            return f"{character!a} at character {position} is not allowed."
    return f"it begins with {name[0]!a}."
