"""Replaces named values inside of texts: JSON, XML, request targets, cookies. `redaction` calls it.

Only the named values change. What is around them stays octet for octet, since what is written anew
loses repeated keys, the digits of large numbers, spaces and comments.
"""

import base64
import binascii
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeAlias
from urllib.parse import quote, unquote_plus

from kfl import ast
from kfl.decode import decode
from kfl.values import MISSING

REDACTED = "[REDACTED]"
JSON_REDACTED = f'"{REDACTED}"'


@dataclass(frozen=True, slots=True)
class Decoded:
    """The step `.json()` or `.xml()`: into a text."""

    kind: str


Steps: TypeAlias = tuple[ast.Step | Decoded, ...]

Wanted: TypeAlias = tuple[Steps, ...]
"""What is named, seen from a value: ways that lead on from it. () is the value itself."""

ITSELF: Wanted = ((),)


# ------------------------------------------------------------------------------------ steps


def member(wanted: Wanted, key: str, fold: bool = False) -> Wanted:
    """What is named, seen from the value of a key; `fold`: keys are names of headers."""
    if () in wanted:
        return ITSELF
    found: dict[Steps, None] = {}
    for steps in wanted:
        step = steps[0]
        if isinstance(step, ast.Each):
            found[steps[1:]] = None
        elif isinstance(step, ast.Key | ast.Deep):
            if step.name == key or (fold and step.name.lower() == key.lower()):
                found[steps[1:]] = None
            if isinstance(step, ast.Deep):
                found[steps] = None
    return tuple(found)


def item(wanted: Wanted, number: int) -> Wanted:
    """What is named, seen from an element of a list."""
    if () in wanted:
        return ITSELF
    found: dict[Steps, None] = {}
    for steps in wanted:
        step = steps[0]
        if isinstance(step, ast.Each) or step == ast.Index(number):
            found[steps[1:]] = None
        elif isinstance(step, ast.Deep):
            found[steps] = None
    return tuple(found)


def any_of(wanted: Wanted) -> Wanted:
    """The same, where a name may come once or often: which of the values is not looked at."""
    return tuple(
        steps[1:] if steps and isinstance(steps[0], ast.Index | ast.Each) else steps
        for steps in wanted
    )


# ------------------------------------------------------------------------------------ texts


def edit(text: str, wanted: Wanted, is_partial: bool = False) -> str:
    """Return a text with what is named in it replaced.

    `is_partial`: the text is cut, or compressed, so it is replaced if it cannot be decoded.
    """
    if not wanted:
        return text
    if () in wanted:
        return REDACTED
    for kind in ("json", "xml"):
        inside = tuple(steps[1:] for steps in wanted if steps[0] == Decoded(kind))
        if inside and text:
            text = _edit_encoded(text, kind, inside, is_partial)
    return text


_BEGINS = {"json": ("{", "["), "xml": ("<",)}
_BEFORE = "\ufeff\xef\xbb\xbf\xff\xfe\0 \t\r\n"
"""What may stand before the first character: marks of the order of octets, zeros of UTF-16."""


def _edit_encoded(text: str, kind: str, wanted: Wanted, is_partial: bool) -> str:
    """Edit JSON or XML, in base64 perhaps, as body.json() and body.xml() read it.

    What cannot be decoded has no such value and stays. But what begins as JSON or XML may hold it
    all the same (it was cut, there are several documents, it is too large): then all of it goes.
    """
    for plain, pack in _readings(text):
        if decode(kind, plain) is not MISSING:
            changed = edit_json(plain, wanted) if kind == "json" else _edit_xml(plain, wanted)
            return text if changed == plain else pack(changed)
        if plain.lstrip(_BEFORE).startswith(_BEGINS[kind]):
            return REDACTED
    return REDACTED if is_partial else text


def _readings(text: str) -> list[tuple[str, Callable[[str], str]]]:
    """Return a text out of its base64, if it is that, and as it is; each with the way back."""
    found: list[tuple[str, Callable[[str], str]]] = [(text, str)]
    if text[0] in "{[<":
        return found
    try:
        octets = base64.b64decode(text.encode("ascii"), validate=True)
    except (UnicodeEncodeError, binascii.Error):
        return found
    try:
        plain, encoding = octets.decode("utf-8"), "utf-8"
    except UnicodeDecodeError:
        plain, encoding = octets.decode("latin-1"), "latin-1"
    return [(plain, lambda new: base64.b64encode(new.encode(encoding)).decode("ascii")), *found]


Span: TypeAlias = tuple[int, int, str]
"""Begin and end in a text, and what comes there."""


def _replaced(text: str, spans: list[Span]) -> str:
    """Return a text with other text in some spans, none of which lies in another."""
    parts, at = [], 0
    for begin, end, new in sorted(spans):
        parts += [text[at:begin], new]
        at = end
    return "".join([*parts, text[at:]])


# ------------------------------------------------------------------------------------ JSON

_JSON = json.JSONDecoder(parse_int=str, parse_float=str)
"""Finds where a value ends. Numbers stay text: their digits are nobody's business here."""

_JSON_SPACE = re.compile(r"[ \t\n\r]*")


def edit_json(text: str, wanted: Wanted) -> str:
    """Return JSON in which a text stands for what is named; for all of it if it cannot be read."""
    editor = _JsonEditor(text)
    try:
        editor.value(editor.space(0), wanted)
    except (ValueError, IndexError, RecursionError):
        return JSON_REDACTED
    return _replaced(text, editor.spans)


class _JsonEditor:
    """Walks through a document as far as something may be named there; C code skips the rest."""

    def __init__(self, text: str) -> None:
        self.spans: list[Span] = []
        self._text = text

    def space(self, at: int) -> int:
        """Return the position after white space."""
        found = _JSON_SPACE.match(self._text, at)
        return found.end() if found else at

    def value(self, at: int, wanted: Wanted) -> int:
        """Look at the value at `at`; return where it ends."""
        first = self._text[at]
        if wanted and () not in wanted:
            if first == "{":
                return self._object(at, wanted)
            if first == "[":
                return self._list(at, wanted)
        found, end = _JSON.raw_decode(self._text, at)
        if () in wanted:
            if found is not None:
                self.spans.append((at, end, JSON_REDACTED))
        elif wanted and first == '"':
            changed = edit(found, wanted)
            if changed != found:
                self.spans.append((at, end, json.dumps(changed)))
        return end

    def _object(self, at: int, wanted: Wanted) -> int:
        # A key that comes twice is looked at twice, whichever of the two a reader takes.
        at = self.space(at + 1)
        while self._text[at] != "}":
            key, at = _JSON.raw_decode(self._text, at)
            at = self.space(self.space(at) + 1)  # behind the colon
            at = self._next(self.value(at, member(wanted, key)))
        return at + 1

    def _list(self, at: int, wanted: Wanted) -> int:
        at, number = self.space(at + 1), 0
        while self._text[at] != "]":
            at = self._next(self.value(at, item(wanted, number)))
            number += 1
        return at + 1

    def _next(self, at: int) -> int:
        """Return the position of the next member, or of the bracket that ends them."""
        at = self.space(at)
        return self.space(at + 1) if self._text[at] == "," else at


# ------------------------------------------------------------------------------------ XML

_MARKUP = re.compile(
    r"<!--.*?-->|<\?.*?\?>|<!\[CDATA\[.*?\]\]>"
    r"|</\s*(?P<end>[^\s>]+)\s*>"
    r"|<(?P<name>[^\s/>!?]+)(?P<attributes>(?:[^>\"']|\"[^\"]*\"|'[^']*')*)>"
    r"|[^<]+",
    re.DOTALL,
)
"""Every piece of a document that a parser has accepted and that has no DOCTYPE."""

_ATTRIBUTE = re.compile(r"""([^\s=]+)\s*=\s*("[^"]*"|'[^']*')""")
_ENCODING = re.compile(r"""<\?xml[^>]*?\sencoding\s*=\s*["']([^"']*)""")
_ENCODINGS = ("utf-8", "us-ascii", "iso-8859-1")
"""Those in which the markup is ASCII, as it is read here."""


@dataclass(slots=True)
class _Element:
    name: str
    begin: int
    end: int = 0
    attributes: list[tuple[str, int, int]] = field(default_factory=list)
    """Local name, and the span of the value without its quotes."""
    texts: list[tuple[int, int]] = field(default_factory=list)
    children: dict[str, list["_Element"]] = field(default_factory=dict)


def _edit_xml(text: str, wanted: Wanted) -> str:
    """Return XML that kfl.decode accepts with what is named in it replaced."""
    declared = _ENCODING.match(text.lstrip(_BEFORE))
    if declared and declared[1].lower() not in _ENCODINGS:
        return REDACTED
    root = _Element("", 0)
    stack = [root]
    for piece in _MARKUP.finditer(text):
        if piece["name"]:
            name = piece["name"]
            element = _Element(name, piece.start())
            begin = piece.start("attributes")
            for each in _ATTRIBUTE.finditer(piece["attributes"]):
                span = (begin + each.start(2) + 1, begin + each.end(2) - 1)
                element.attributes.append((_local(each[1]), *span))
            stack[-1].children.setdefault(_local(name), []).append(element)
            if piece["attributes"].endswith("/"):
                element.end = piece.end()
            else:
                stack.append(element)
        elif piece["end"]:
            stack.pop().end = piece.end()
        elif piece[0].strip() and not piece[0].startswith(("<!--", "<?")):
            stack[-1].texts.append(piece.span())
    spans: list[Span] = []
    _walk_xml(root, tuple(steps for steps in wanted if not _is_into_text(steps)), spans)
    return _replaced(text, spans)


def _walk_xml(element: _Element, wanted: Wanted, spans: list[Span]) -> None:
    """Find what is named below an element; the keys are those of kfl.decode."""
    if any(map(_is_into_text, wanted)):
        # Its attributes are part of its value.
        new = f"<{element.name}>{REDACTED}</{element.name}>"
        spans.append((element.begin, element.end, new))
        return
    for key, begin, end in element.attributes:
        if any(map(_is_into_text, member(wanted, f"-{key}"))):
            spans.append((begin, end, REDACTED))
    if any(map(_is_into_text, member(wanted, "#text"))):
        spans += [(begin, end, REDACTED) for begin, end in element.texts]
    for key, same in element.children.items():
        below = member(wanted, key)
        if below:
            for number, child in enumerate(same):
                _walk_xml(child, _one_of(below, number, len(same) > 1), spans)


def _is_into_text(steps: Steps) -> bool:
    """The way ends here, or leads into a text, which in XML is replaced as a whole."""
    return not steps or isinstance(steps[0], Decoded)


def _one_of(wanted: Wanted, number: int, is_list: bool) -> Wanted:
    """What is named, seen from one of the elements with the same name.

    For decode() they are a list if there are several. Who named the value in one of them need not
    know how many come, so steps into a list also lead into an element that is alone, and names
    into each of several.
    """
    if () in wanted:
        return ITSELF
    found: dict[Steps, None] = {}
    for steps in wanted:
        step = steps[0]
        if step == ast.Index(number) or (isinstance(step, ast.Each) and (is_list or steps[1:])):
            found[steps[1:]] = None
        if not isinstance(step, ast.Index) and not (isinstance(step, ast.Each) and is_list):
            found[steps] = None
    return tuple(found)


def _local(name: str) -> str:
    return name.rpartition(":")[2]


# ------------------------------------------------------------------------------------ HTTP


@dataclass(frozen=True, slots=True)
class Target:
    """What is named of a request target."""

    path: Wanted
    segments: Wanted
    query: Wanted

    @property
    def is_named(self) -> bool:
        """Something is."""
        return bool(self.path or self.segments or self.query)

    def edit(self, text: str) -> str:
        """Return a target, or only its path, with what is named in it replaced."""
        path, mark, query = text.partition("?")
        path = edit(path, self.path)
        if path != REDACTED and self.segments:
            first, *others = path.split("/")
            segments = others if not first else [first, *others]
            edited = [edit(each, item(self.segments, n)) for n, each in enumerate(segments)]
            path = "/".join(edited if first else ["", *edited])
        if not mark or not self.query:
            return path + mark + query
        if () in self.query:
            return path + mark + REDACTED
        return path + mark + "&".join(map(self._pair, query.split("&")))

    def _pair(self, pair: str) -> str:
        name, _, value = pair.partition("=")
        wanted = any_of(member(self.query, unquote_plus(name))) if pair else ()
        plain = unquote_plus(value)
        changed = edit(plain, wanted) if wanted else plain
        if changed == plain:
            return pair
        return f"{name}={changed if changed == REDACTED else quote(changed)}"


def edit_cookies(text: str, wanted: Wanted, is_set: bool) -> str:
    """Return the value of Cookie, or of Set-Cookie, with what is named of its cookies replaced."""
    if () in wanted:
        return REDACTED
    pairs = text.split(";")
    for number, pair in enumerate(pairs[:1] if is_set else pairs):
        name, equals, value = pair.partition("=")
        changed = edit(value.strip(), any_of(member(wanted, name.strip())))
        if equals and changed != value.strip():
            pairs[number] = f"{name}={changed}"
    return ";".join(pairs)
