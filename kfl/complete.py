"""What can come next in a filter that is being written: `complete`, for prompts and editors.

The grammar's parser, in its state before the caret, says which terminals can stand there.
The catalogue and the tables of words, functions and operators say what of that makes sense.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from kfl import operands
from kfl.fields import NAMES, Field
from kfl.functions import FITS, FUNCTIONS, METHODS, NO_ARGUMENTS
from kfl.operands import Operand
from kfl.operators import ALL, Operator
from kfl.parse import MAX_LENGTH
from kfl.show import show_text
from kfl.tokens import Piece, Reader, terminal_of
from kfl.usual import ARGUMENTS, HEADERS, LABELS, OFTEN, VALUES
from kfl.words import NARROWER, WORDS

Kind: TypeAlias = Literal[
    "field", "word", "function", "method", "operator", "keyword", "value", "recording"
]

MAX_CANDIDATES = 500
"""Of one place: all names of the catalogue, and of recordings more than anybody looks through."""

_OPERATOR_CHARACTERS = "=!<>&|"

_KEYWORDS = {
    "not": "true when its condition is not",
    "true": "always true",
    "false": "never true",
    "nil": "no value",
}
"""What a condition can begin with."""

_CLOSERS = {
    "RPAR": (")", "ends the brackets"),
    "RSQB": ("]", "ends the list"),
    "COMMA": (",", "one more"),
}

_USE = {name: place for place, name in enumerate(OFTEN)}


@dataclass(frozen=True, slots=True)
class Candidate:
    """What can be put in; `type` is that of its value, as in the catalogue, or ""."""

    insert: str
    kind: Kind
    type: str = ""
    help: str = ""


@dataclass(frozen=True, slots=True)
class Completions:
    """Candidates, best first, for the span from `start` up to `end`, in characters of the text."""

    start: int
    end: int
    candidates: tuple[Candidate, ...] = ()


@dataclass(frozen=True, slots=True)
class _Offer:
    """A candidate, what must match of it, and how late it comes among those that match alike."""

    candidate: Candidate
    label: str
    late: int = 0


@dataclass(frozen=True, slots=True)
class _Place:
    """Where the caret is, as the producers of offers need it."""

    stack: Sequence[Any]
    accepts: frozenset[str]
    reader: Reader
    mentioned: frozenset[str]  # protocol words before the caret
    quote: str  # of the text that the caret is in, or ""
    is_called: bool  # an opening bracket follows
    recordings: Sequence[str]
    macros: Mapping[str, str]

    @property
    def top(self) -> str:
        """The terminal before the caret, "" where that is something else."""
        return _type(self.stack[-1]) if self.stack else ""


def complete(
    text: str,
    caret: int,
    *,
    recordings: Iterable[str] = (),
    macros: Mapping[str, str] | None = None,
) -> Completions:
    """What can stand at the caret, an offset in characters; never raises for any text.

    `recordings` are names to offer in record(), `macros` operators' words and what they stand for.
    """
    caret = max(0, min(caret, len(text)))
    if caret > MAX_LENGTH:
        return Completions(caret, caret)
    reader = Reader(text[:caret])
    mentioned: set[str] = set()
    partial: Piece | None = None
    for piece in reader.pieces():
        if piece.end == caret and _is_partial(piece, reader):
            partial = piece
            break
        if piece.text in WORDS:
            mentioned.add(piece.text)
    if partial is not None and (partial.terminal in ("COMMENT", "REGEX")):
        return Completions(caret, caret)
    start = caret if partial is None else partial.start
    typed = text[start:caret]
    end = _end(text, caret, partial)
    quote = typed[0] if partial is not None and not partial.is_closed else ""
    place = _Place(
        reader.stack(),
        reader.accepts(),
        reader,
        frozenset(mentioned | {"http"} if mentioned & NARROWER["http"] else mentioned),
        quote,
        text[end:].lstrip(" \t").startswith("("),
        tuple(recordings),
        macros or {},
    )
    offers = _offers(place, _is_operator(partial))
    return Completions(start, end, _ranked(offers, typed[1:] if quote else typed, quote))


def _is_operator(partial: Piece | None) -> bool:
    return partial is not None and partial.text in _OPERATOR_CHARACTERS


def _is_partial(piece: Piece, reader: Reader) -> bool:
    """Whether a piece that ends at the caret is still being written."""
    if not piece.is_closed or piece.terminal in ("COMMENT", "INTEGER", "DECIMAL", ""):
        return True
    if piece.text in _OPERATOR_CHARACTERS:
        return piece.terminal not in reader.accepts()
    return piece.text.isidentifier()


def _end(text: str, caret: int, partial: Piece | None) -> int:
    """Where the piece that the caret is in ends."""
    if partial is None:
        return caret
    if not partial.is_closed:
        quote = partial.text[0]
        line = text[caret:].split("\n", 1)[0]
        # With an even number of quotes behind the caret, they belong to other texts.
        closing = [found.start() for found in re.finditer(rf"(?<!\\){quote}", line)]
        return caret + closing[0] + 1 if len(closing) % 2 else caret
    rest = re.compile(r"[=!<>&|]*" if _is_operator(partial) else r"[A-Za-z0-9_]*")
    found = rest.match(text, caret)
    return found.end() if found else caret


def _offers(place: _Place, is_operator: bool) -> Iterator[_Offer]:
    """What the state of the parser allows."""
    if place.top == "DOT" and "NAME" in place.accepts:
        return _keys(place)
    if place.top == "DEEP":
        return _deep_keys()
    if "NAME" in place.accepts and not is_operator:
        return _expression(place)
    if place.accepts and place.accepts <= {"STRING", "INTEGER"}:
        return _quoted_keys(place)
    return iter(()) if place.quote else _operators(place)


def _ranked(offers: Iterable[_Offer], typed: str, quote: str) -> tuple[Candidate, ...]:
    """By how they match what is typed, then by use, then in the order of their tables."""
    found: list[tuple[tuple[int, ...], Candidate]] = []
    seen: set[str] = set()
    for number, offer in enumerate(offers):
        candidate = offer.candidate
        rank = _match(offer.label, typed)
        if rank is None or candidate.insert in seen or (quote and candidate.insert[0] != quote):
            continue
        seen.add(candidate.insert)
        use = _USE.get(offer.label, len(_USE))
        found.append(((rank, offer.late, use, number), candidate))
    found.sort(key=lambda each: each[0])
    return tuple(candidate for _, candidate in found[:MAX_CANDIDATES])


def _match(label: str, typed: str) -> int | None:
    """0 for the same beginning, 1 without regard to case, 2 for a later part; None for none."""
    if label.startswith(typed):
        return 0
    lower = typed.lower()
    if label.lower().startswith(lower):
        return 1
    parts = re.split(r"[._/ -]", label.lower())
    return 2 if any(part.startswith(lower) for part in parts) else None


def _type(item: Any) -> str:
    """The terminal of a token of lark, "" for other things on the stack."""
    return str(getattr(item, "type", "")) if isinstance(item, str) else ""


# ------------------------------------------------------------------------ after a dot


def _keys(place: _Place) -> Iterator[_Offer]:
    base = place.stack[-2] if len(place.stack) > 1 else None
    if not isinstance(base, Operand):
        return
    for key, field in operands.members(base.path).items():
        yield _field(key, f"{base.path}.{key}", field, place)
    yield from _methods(base, place)
    for operator in ALL:
        for spelling in operator.spellings:
            # What is left of `.*` and `..` when their dot is there.
            if len(spelling) == 2 and spelling[0] == "." and base.type in operator.fits:
                yield _Offer(Candidate(spelling[1], "operator", "", operator.meaning), "", 3)


def _methods(base: Operand, place: _Place) -> Iterator[_Offer]:
    for name, about in METHODS.items():
        if base.type in FITS[name]:
            insert = _call(name, place)
            gives = operands.method_type(name)
            yield _Offer(Candidate(insert, "method", gives, about), name, 1)


def _call(name: str, place: _Place) -> str:
    if place.is_called:
        return name
    return f"{name}()" if name in NO_ARGUMENTS else f"{name}("


@functools.cache
def _every_key() -> tuple[str, ...]:
    keys: dict[str, None] = {}
    for name in NAMES:
        keys.update(dict.fromkeys(name.split(".")[1:]))
        keys.update(dict.fromkeys(operands.members(name)))
        keys.update(dict.fromkeys(operands.members(f"{name}.*")))
    return tuple(sorted(keys))


def _deep_keys() -> Iterator[_Offer]:
    for key in _every_key():
        yield _Offer(Candidate(key, "field", "any", "every value with this key"), key)


def _quoted_keys(place: _Place) -> Iterator[_Offer]:
    base = place.stack[-2] if len(place.stack) > 1 else None
    if not isinstance(base, Operand):
        return
    side, _, key = base.path.partition(".")
    if key == "headers" and side in HEADERS:
        known: Iterable[str] = HEADERS[side]
        about = f"header of the {side}"
    elif key.endswith("labels"):
        known, about = LABELS, "label"
    else:
        known, about = operands.members(base.path), "key"
    for name in known:
        yield _Offer(Candidate(_quoted(name, place.quote), "value", "text", about), name)


# ------------------------------------------------------------------------ a condition or a value


def _expression(place: _Place) -> Iterator[_Offer]:
    call, compared = _context(place.stack)
    if call in ARGUMENTS or call in ("record", "redact"):
        yield from _arguments(call, place)
        return
    if compared is not None:
        path = operands.canonical(compared.path)
        yield from _values(VALUES.get(path, ()), place, f"a value of {compared.path}")
    if place.quote:
        return
    for name, about in FUNCTIONS.items():
        candidate = Candidate(_call(name, place), "function", operands.call_type(name), about)
        yield _Offer(candidate, name, int(name not in _USE))
    if place.is_called:
        return
    for name, field in NAMES.items():
        yield _field(name, name, field, place)
    if compared is None:
        meanings = {word.name: word.meaning for word in WORDS.values()} | dict(place.macros)
        for name, meaning in meanings.items():
            yield _Offer(Candidate(name, "word", "bool", meaning), name)
    for keyword, about in _KEYWORDS.items():
        yield _Offer(Candidate(keyword, "keyword", "", about), keyword, 1)


def _context(stack: Sequence[Any]) -> tuple[str, Operand | None]:
    """The function in whose brackets a value is to stand; the value that it is compared with."""
    top = len(stack) - 1
    if top < 0:
        return "", None
    terminal = _type(stack[top])
    if terminal in ("LPAR", "LSQB", "COMMA"):
        while top >= 0 and _type(stack[top]) not in ("LPAR", "LSQB"):
            top -= 1
        top -= 1
        if top < 0:
            return "", None
        terminal = _type(stack[top])
        if terminal == "NAME":
            if top >= 2 and _type(stack[top - 1]) == "DOT":
                return "", _operand(stack[top - 2])
            return str(stack[top]), None
    if terminal in ("COMPARE", "IN") and top > 0:
        return "", _operand(stack[top - 1])
    return "", None


def _operand(item: Any) -> Operand | None:
    return item if isinstance(item, Operand) else None


def _arguments(call: str, place: _Place) -> Iterator[_Offer]:
    if call == "record":
        for name in place.recordings:
            insert = _quoted(name, place.quote)
            yield _Offer(Candidate(insert, "recording", "text", "a recording"), name)
    elif call == "redact":
        for name, field in NAMES.items():
            if field.how == "one" and not field.guard:
                insert = _quoted(name, place.quote)
                yield _Offer(Candidate(insert, "value", "text", field.meaning), name)
    else:
        yield from _values(ARGUMENTS[call], place, FUNCTIONS[call])


def _values(known: Iterable[str | int], place: _Place, about: str) -> Iterator[_Offer]:
    for value in known:
        if isinstance(value, str):
            insert, gives = _quoted(value, place.quote), "text"
        else:
            insert, gives = str(value), "number"
        yield _Offer(Candidate(insert, "value", gives, about), str(value), -1)


def _field(insert: str, name: str, field: Field | None, place: _Place) -> _Offer:
    if field is None:
        found = operands.at(name)
        return _Offer(Candidate(insert, "field", found.type), insert)
    about = field.meaning if field.name == name else f"{field.meaning} (as {field.name})"
    if field.guard:
        about += f"; only of {field.guard}"
    is_of_others = (
        place.mentioned and field.protocols and place.mentioned.isdisjoint(field.protocols)
    )
    late = 2 if field.absent else int(bool(is_of_others))
    return _Offer(Candidate(insert, "field", field.type, about), insert, late)


def _quoted(value: str, quote: str) -> str:
    shown = show_text(value)
    if quote == "'":
        return "'" + shown[1:-1].replace('\\"', '"').replace("'", "\\'") + "'"
    return shown


# ------------------------------------------------------------------------ after a value


def _operators(place: _Place) -> Iterator[_Offer]:
    for operator in ALL:
        for number, spelling in enumerate(operator.spellings):
            if _fits(operator, spelling, place):
                kind: Kind = "keyword" if spelling.isalpha() else "operator"
                about = f"{operator.meaning}, as in {operator.example}"
                late = 1 if spelling[0] in ".[?" else int(number > 0)
                yield _Offer(Candidate(spelling, kind, "", about), spelling, late)
    for terminal, (closer, about) in _CLOSERS.items():
        if terminal in place.accepts:
            yield _Offer(Candidate(closer, "operator", "", about), closer, 2)


def _fits(operator: Operator, spelling: str, place: _Place) -> bool:
    terminal = _terminal_of(spelling)
    if not operator.fits or terminal not in place.accepts:
        return False
    if terminal == "COLON":
        return True
    left = place.reader.before(terminal)
    return left is None or left.type in operator.fits


_terminal_of = functools.cache(terminal_of)
