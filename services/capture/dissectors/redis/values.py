"""From the octets of one RESP message to what an entry shows of it. `entries` calls it.

What a password can be is never read: of AUTH, HELLO, and the commands that set passwords.
"""

from __future__ import annotations

import re
from typing import Any, Final

from services.capture.dissectors.redis.wire import (
    ARRAY,
    ATTRIBUTE,
    BIG,
    BOOLEAN,
    BULK,
    BULK_ERROR,
    DOUBLE,
    INLINE,
    INTEGER,
    MAP,
    NULL,
    PUSH,
    SET,
    TYPES,
    VERBATIM,
)

MOST_DEPTH: Final = 32  # of lists in lists: what is deeper is left out
MOST_SHOWN: Final = 4096  # values of a message
CUT: Final = "…"
"""In place of what is left out, and of octets that were not kept."""
HIDDEN: Final = "[redacted]"

_LISTS = frozenset({ARRAY, SET, PUSH})
_MAPS = frozenset({MAP, ATTRIBUTE})
_STRINGS = frozenset({BULK, VERBATIM, BULK_ERROR})
_CHANNELS = frozenset(
    {
        *("message", "pmessage", "smessage", "invalidate"),
        *("subscribe", "psubscribe", "ssubscribe"),
        *("unsubscribe", "punsubscribe", "sunsubscribe"),
    }
)
_SECRET_SETTINGS = frozenset(
    {"requirepass", "masterauth", "tls-key-file-pass", "tls-client-key-file-pass", "sentinel-pass"}
)
# A quote that is not closed goes to the end, so that no octet is looked at twice.
_PART = re.compile(r"""\"((?:[^"\\]|\\.)*)\\?\"?|'((?:[^'\\]|\\.)*)\\?'?|([^\s"']+)""")
_WORD = re.compile(rf"(?:{_PART.pattern})+")
_ESCAPED = re.compile(r"\\(x[0-9a-fA-F]{2}|.)")
_TELL_SECRETS = frozenset({"auth", "hello", "migrate", "acl", "config", "sentinel"})
_SECRET_ANSWERS = frozenset({"genpass", "getuser", "list"})
"""Of ACL: passwords, or their hashes."""
LONGEST_NAMES: Final = 256
"""Octets of a command in which its first two words are looked for."""


class _End(Exception):  # noqa: N818
    """The octets end inside a value."""


class _Reader:
    """Reads the values of one message, one after the other."""

    def __init__(self, octets: bytes) -> None:
        self._octets = octets
        self._at = 0
        self._left = MOST_SHOWN

    def _line(self) -> tuple[int, bytes]:
        end = self._octets.find(b"\r\n", self._at)
        if end < 0:
            raise _End
        begin, self._at = self._at, end + 2
        return self._octets[begin], self._octets[begin + 1 : end]

    def value(self, depth: int = 0) -> Any:
        """Return the next value; what is missing of it is CUT."""
        self._left -= 1
        if self._left < 0 or depth > MOST_DEPTH:
            raise _End
        kind, line = self._line()
        if kind in _STRINGS:
            return self._string(kind, int(line))
        if kind in _LISTS:
            return self._list(max(int(line), 0), depth) if int(line) >= 0 else None
        if kind in _MAPS:
            found = self._map(max(int(line), 0), depth)
            return self.value(depth) if kind == ATTRIBUTE else found
        return _scalar(kind, line)

    def _string(self, kind: int, length: int) -> str | None:
        if length < 0:
            return None
        begin, self._at = self._at, self._at + length + 2
        found = text(self._octets[begin : begin + length])
        if begin + length > len(self._octets):
            return found + CUT
        return found[4:] if kind == VERBATIM else found

    def _list(self, count: int, depth: int) -> list[Any]:
        found: list[Any] = []
        try:
            for _ in range(count):
                found.append(self.value(depth + 1))
        except _End:
            found.append(CUT)
            self._left = 0
        return found

    def _map(self, count: int, depth: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        try:
            for _ in range(count):
                key = self.value(depth + 1)
                found[key if isinstance(key, str) else str(key)] = self.value(depth + 1)
        except _End:
            found[CUT] = CUT
            self._left = 0
        return found


def text(octets: bytes) -> str:
    """Return a string of Redis, which may be any octets: UTF-8, else read as Latin-1."""
    try:
        return octets.decode()
    except UnicodeDecodeError:
        return octets.decode("latin-1")


def _scalar(kind: int, line: bytes) -> Any:
    shown = text(line)
    if kind == NULL:
        return None
    if kind == BOOLEAN:
        return line == b"t"
    if kind in (INTEGER, BIG):
        digits = line[1:] if line[:1] in (b"-", b"+") else line
        return int(line) if digits.isdigit() and len(digits) < 19 else shown
    if kind == DOUBLE:
        try:
            number = float(line)
        except ValueError:
            return shown
        return number if number - number == 0 else shown  # JSON has no infinity
    return shown


def command(octets: bytes) -> dict[str, Any]:
    """Return an entry's request of the octets of a command, which may be cut."""
    kind = TYPES[ARRAY] if octets[:1] == b"*" else INLINE
    return {"type": kind, **_named(_without_secrets(_arguments(octets)))}


def _arguments(octets: bytes) -> list[str]:
    """Return the words of a command, which may be cut."""
    if octets[:1] != b"*":
        return _inline_arguments(text(octets))
    try:
        found = _Reader(octets).value()
    except (_End, ValueError):
        return []
    return [_shown(each) for each in found or []]


def _inline_arguments(line: str) -> list[str]:
    """Return the words of a line; quotes are as the server's sdssplitargs() reads them."""
    found = []
    for word in _WORD.finditer(line):
        parts = []
        for part in _PART.finditer(word[0]):
            double, single, plain = part.groups()
            if double is not None:
                parts.append(_ESCAPED.sub(_unescaped, double))
            else:
                parts.append(single.replace("\\'", "'") if single is not None else plain)
        found.append("".join(parts))
    return found


def _unescaped(match: re.Match[str]) -> str:
    escaped = match[1]
    if len(escaped) > 1:
        return chr(int(escaped[1:], 16))
    return {"n": "\n", "r": "\r", "t": "\t", "b": "\b", "a": "\a"}.get(escaped, escaped)


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else "" if value is None else str(value)


def _named(arguments: list[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if arguments:
        found["command"] = arguments[0].upper()
    if len(arguments) > 1:
        found["key"] = arguments[1]
    if len(arguments) > 2:
        found["value"] = arguments[2]
    if len(arguments) > 3:
        found["keyword"] = " ".join(arguments[3:])
    return found


def _without_secrets(arguments: list[str]) -> list[str]:
    """Hide what follows where a password can stand."""
    first = arguments[0].lower() if arguments else ""
    if first not in _TELL_SECRETS:
        return arguments
    words = [each.lower() for each in arguments]
    shown = len(arguments)
    if first == "auth":
        shown = 1
    elif first in ("hello", "migrate"):
        places = [words.index(each) for each in ("auth", "auth2") if each in words[1:]]
        shown = min(places, default=shown - 1) + 1
    elif words[:2] == ["acl", "setuser"]:
        shown = 3
    elif words[:2] == ["config", "set"] or words[:3] == ["sentinel", "config", "set"]:
        shown = next((n + 1 for n, each in enumerate(words) if each in _SECRET_SETTINGS), shown)
    elif words[:2] == ["sentinel", "set"]:
        shown = next((n + 1 for n, each in enumerate(words) if each.startswith("auth-")), shown)
    return arguments[:shown] + [HIDDEN] * (len(arguments) - shown)


def reply(octets: bytes, asked: bytes = b"") -> dict[str, Any]:
    """Return an entry's response of the octets of a reply, which may be cut, and of its command; of
    a pushed message there is none.
    """
    kind = octets[0] if octets else 0
    while kind == ATTRIBUTE:  # what an attribute is about follows it
        octets = _after_attribute(octets)
        kind = octets[0] if octets else 0
    if kind not in TYPES:
        return {}
    try:
        value = _Reader(octets).value()
    except (_End, ValueError):
        value = CUT
    words: list[str] = []
    if isinstance(value, list) or b"acl" in asked[:LONGEST_NAMES].lower():
        words = [each.lower() for each in _arguments(asked[:LONGEST_NAMES])[:2]]
    found: dict[str, Any] = {"type": TYPES[kind], "value": _without_known(words, value)}
    if isinstance(value, list) and (not asked or (words and words[0] in _CHANNELS)):
        found |= _of_channel(value)
    return found


def _without_known(words: list[str], value: Any) -> Any:
    """Hide what a server tells of the passwords that it knows."""
    if words[:1] == ["acl"] and words[1:] and words[1] in _SECRET_ANSWERS:
        return HIDDEN
    if isinstance(value, dict):
        return {name: HIDDEN if name in _SECRET_SETTINGS else each for name, each in value.items()}
    if isinstance(value, list):
        before = [None, *value]
        return [
            HIDDEN if isinstance(name, str) and name in _SECRET_SETTINGS else each
            for name, each in zip(before, value, strict=False)
        ]
    return value


def _of_channel(value: list[Any]) -> dict[str, Any]:
    """Return what a message of a channel says, or a confirmation; nothing of other lists."""
    name = value[0] if value else None
    if not isinstance(name, str) or name not in _CHANNELS:
        return {}
    if name == "pmessage" and len(value) == 4:  # pattern, channel, payload
        return {"command": name, "key": value[2], "value": value[3], "keyword": value[1]}
    if name == "invalidate" and len(value) == 2:
        keys = value[1] if isinstance(value[1], list) else []
        return {"command": name, "key": " ".join(map(_shown, keys)), "value": None}
    if len(value) != 3:
        return {}
    return {"command": name, "key": _shown(value[1]), "value": value[2]}


def _after_attribute(octets: bytes) -> bytes:
    reader = _Reader(octets)
    try:
        _, line = reader._line()
        for _ in range(2 * int(line)):
            reader.value()
    except (_End, ValueError):
        return b""
    return octets[reader._at :]
