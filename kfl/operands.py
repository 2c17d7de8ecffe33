"""What is known of the values in an unfinished filter: their types, and where they are from.

The parser in `tokens` calls what RULES has for each rule of the grammar that it completes.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from kfl.fields import NAMES, Field
from kfl.times import OFFSETS
from kfl.words import WORDS

_MEMBERS = re.compile(r"\{([^}]*)\}")


@dataclass(frozen=True, slots=True)
class Operand:
    """A value: its type as in `fields`, or `test`; its path in an entry, "" when it has none."""

    type: str
    path: str = ""


LONGEST_PATH = 200
"""Characters of a path that is followed; the catalogue has none half as long."""

ANY = Operand("any")
TEST = Operand("test")
NUMBER = Operand("number")

_CALLS = {
    "size": NUMBER,
    "now": NUMBER,
    "timestamp": NUMBER,
    "datetime": NUMBER,
    "duration": NUMBER,
    **dict.fromkeys(OFFSETS, NUMBER),
    "redact": TEST,
    "limit": TEST,
    "record": TEST,
}

_METHODS = {
    "size": NUMBER,
    **dict.fromkeys(("startsWith", "endsWith", "contains", "matches"), TEST),
}

_LITERALS = {
    "TRUE": Operand("bool"),
    "FALSE": Operand("bool"),
    "STRING": Operand("text"),
    "REGEX": Operand("text"),
    "NIL": ANY,
}


def at(path: str) -> Operand:
    """What is at a path, as far as the catalogue tells."""
    found = NAMES.get(path)
    if found is not None:
        return Operand(found.type, path)
    if path in _parents():
        return Operand("map", path)
    return Operand("any", path)


def canonical(path: str) -> str:
    """Where an entry has what a name or an alias stands for."""
    found = NAMES.get(path)
    return found.paths[0] if found is not None and found.how in ("one", "first") else path


def call_type(function: str) -> str:
    """The type of what a function gives; `test` is written as bool."""
    return _CALLS.get(function, ANY).type.replace("test", "bool")


def method_type(function: str) -> str:
    """The same of a function behind a dot."""
    return _METHODS.get(function, ANY).type.replace("test", "bool")


def members(path: str) -> dict[str, Field | None]:
    """Keys that are known right below a path; None where the catalogue has no field for one."""
    found: dict[str, Field | None] = {}
    for name in _parents().get(path, ()):
        found[name] = NAMES.get(f"{path}.{name}")
    described = NAMES.get(path.removesuffix(".*"))
    listed = _MEMBERS.search(described.meaning) if described else None
    if listed and (described is None or described.type != "list" or path.endswith(".*")):
        for name in listed.group(1).split(", "):
            found.setdefault(name, None)
    return found


@functools.cache
def _parents() -> dict[str, tuple[str, ...]]:
    """The keys below each path of which the catalogue has something, in its order."""
    below: dict[str, dict[str, None]] = {}
    for name in NAMES:
        keys = name.split(".")
        for length in range(1, len(keys)):
            below.setdefault(".".join(keys[:length]), {})[keys[length]] = None
    return {path: tuple(keys) for path, keys in below.items()}


def below(path: str, key: str) -> str:
    """The path of a key below a path; "" below "" and where it would get too long."""
    longer = f"{path}.{key}"
    return longer if path and len(longer) <= LONGEST_PATH else ""


def _below(base: Any, key: str) -> Operand:
    path = below(base.path, key) if isinstance(base, Operand) else ""
    return at(path) if path else ANY


def _name(parts: list[Any]) -> Operand:
    word = str(parts[0])
    return TEST if word in WORDS and word not in NAMES else at(word)


def _literal(parts: list[Any]) -> Operand:
    return _LITERALS.get(parts[0].type, NUMBER)


def _same(parts: list[Any]) -> Operand:
    return parts[0] if isinstance(parts[0], Operand) else ANY


def _always(operand: Operand) -> Callable[[list[Any]], Operand]:
    return lambda _: operand


RULES: dict[str, Callable[[list[Any]], Any]] = {
    "name": _name,
    "literal": _literal,
    "key": lambda parts: _below(parts[0], str(parts[1])),
    "quoted_key": lambda parts: _below(parts[0], str(parts[1])[1:-1]),
    "index": lambda parts: _below(parts[0], "*"),
    "each": lambda parts: _below(parts[0], "*"),
    "deep": _always(ANY),
    "call": lambda parts: _CALLS.get(str(parts[0]), ANY),
    "method": lambda parts: _METHODS.get(str(parts[1]), ANY),
    "list_of": _always(Operand("list")),
    "group": _same,
    "arithmetic": lambda parts: Operand(_same(parts).type),
    "minus": _always(NUMBER),
    "choice": _always(ANY),
    **dict.fromkeys(("either", "both", "compare", "negate"), _always(TEST)),
    "arguments": tuple,
}
"""What a rule of the grammar makes of its parts."""
