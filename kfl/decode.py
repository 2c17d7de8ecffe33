"""Texts of an entry decoded: body.json() and body.xml(). Called by `match`; bodies are hostile."""

from __future__ import annotations

import base64
import binascii
from typing import Any
from xml.parsers import expat

import orjson

from kfl.values import MISSING

MAX_XML_DEPTH = 100
"""Elements inside elements; documents of APIs stay below 20."""

MAX_XML_NODES = 100_000
"""Elements and attributes of one document."""

MAX_DECODED_LENGTH = 16 << 20
"""Characters of a text that is decoded: bodies are cut far earlier."""


def decode(kind: str, text: Any) -> Any:
    """The text as JSON or XML, as base64 of it first; MISSING when it is neither."""
    if type(text) is not str or not text or len(text) > MAX_DECODED_LENGTH:
        return MISSING
    read = _json if kind == "json" else _xml
    try:
        unpacked = base64.b64decode(text.encode("ascii"), validate=True)
    except (UnicodeEncodeError, binascii.Error, ValueError):
        pass
    else:
        found = read(unpacked)
        if found is not MISSING:
            return found
    try:
        return read(text.encode("utf-8"))
    except UnicodeEncodeError:
        return MISSING


def _json(octets: bytes) -> Any:
    try:
        return orjson.loads(octets)
    except (orjson.JSONDecodeError, RecursionError):
        return MISSING


def _xml(octets: bytes) -> Any:
    reader = _XmlReader()
    try:
        return reader.read(octets)
    except (expat.ExpatError, _RefusedError, UnicodeError, ValueError, LookupError):
        return MISSING


class _RefusedError(Exception):
    """A document with what is not needed and not safe."""


class _XmlReader:
    """XML as maps: attributes as `-name`, text beside others as `#text`, lists of equal elements.

    An element with nothing but text is that text. Prefixes of names are dropped. Documents with a
    DOCTYPE are refused, so there are no entities to expand.
    """

    def __init__(self) -> None:
        self._nodes = 0
        self._stack: list[tuple[dict[str, Any], list[str]]] = [({}, [])]

    def read(self, octets: bytes) -> Any:
        parser = expat.ParserCreate()
        parser.StartDoctypeDeclHandler = self._refuse
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._text
        parser.buffer_text = True
        parser.Parse(octets, True)
        return self._stack[0][0]

    def _refuse(self, *_: object) -> None:
        raise _RefusedError

    def _start(self, _name: str, attributes: dict[str, str]) -> None:
        self._nodes += 1 + len(attributes)
        if len(self._stack) > MAX_XML_DEPTH or self._nodes > MAX_XML_NODES:
            raise _RefusedError
        self._stack.append(({f"-{_local(key)}": value for key, value in attributes.items()}, []))

    def _text(self, text: str) -> None:
        self._stack[-1][1].append(text)

    def _end(self, name: str) -> None:
        content, texts = self._stack.pop()
        text = "".join(texts).strip()
        value: Any = content
        if not content:
            value = text
        elif text:
            content["#text"] = text
        above = self._stack[-1][0]
        key = _local(name)
        there = above.get(key, MISSING)
        if there is MISSING:
            above[key] = value
        elif isinstance(there, list):
            there.append(value)
        else:
            above[key] = [there, value]


def _local(name: str) -> str:
    return name.rpartition(":")[2]
