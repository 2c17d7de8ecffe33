"""Reads a text that is unfinished or wrong as far as the grammar goes: `tokens` for highlighting.

`complete` uses the Reader too. The terminals, and which of them can stand where, are the grammar's.
"""

from __future__ import annotations

import functools
import re
import types
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from kfl import operands
from kfl.fields import NAMES
from kfl.functions import FUNCTIONS, METHODS
from kfl.operands import RULES, Operand
from kfl.parse import MAX_LENGTH, RESERVED
from kfl.words import WORDS

Kind: TypeAlias = Literal[
    "keyword",
    "operator",
    "word",
    "field",
    "function",
    "string",
    "regex",
    "number",
    "comment",
    "unknown",
]

_UNFINISHED = re.compile(r"""(r?)("(?:\\.|[^"\\\n])*|'(?:\\.|[^'\\\n])*)\\?""")
"""A text or a regex whose closing quote is not on its line: no terminal of the grammar."""

_KINDS: dict[str, Kind] = {
    "STRING": "string",
    "REGEX": "regex",
    "INTEGER": "number",
    "DECIMAL": "number",
    "COMMENT": "comment",
    "": "unknown",
}

_STEPS = ("DOT", "DEEP", "EACH", "LSQB")

CLOSED = ("src", "dst", "node", "protocol", "error")
"""Maps below which there is only what the catalogue names."""

MOST_FILLERS = 3
"""Tokens that are put in before one that cannot stand where it is; then it is left out."""


@dataclass(frozen=True, slots=True)
class Token:
    """A piece of a text, from `start` up to `end`, in characters."""

    start: int
    end: int
    kind: Kind


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece of a text and its terminal of the grammar: "" for what is none."""

    terminal: str
    start: int
    end: int
    text: str
    is_closed: bool = True  # not a text without its closing quote


def tokens(text: str, macros: Collection[str] = ()) -> list[Token]:
    """The pieces of a text in their order, white space left out; `macros` are operators' words.

    Never raises. What lies beyond the longest filter is one piece that is unknown.
    """
    pieces = list(Reader(text[:MAX_LENGTH]).pieces())
    found = list(_kinds(pieces, macros))
    if len(text) > MAX_LENGTH:
        found.append(Token(MAX_LENGTH, len(text), "unknown"))
    return found


class Reader:
    """Follows a text piece by piece with the grammar's own parser.

    After something that cannot stand where it is, it goes on as if what is missing were there.
    """

    def __init__(self, text: str) -> None:
        self.is_broken = False
        self._text = text
        self._parser = _lark().parse_interactive("")

    def pieces(self) -> Iterator[Piece]:
        """Yields each piece, comments too, before the parser takes it."""
        position = 0
        while position < len(self._text):
            piece = self._next(position)
            position = piece.end
            if piece.terminal in _ignored() and piece.terminal != "COMMENT":
                continue
            yield piece
            if piece.terminal != "COMMENT":
                self._take(piece)

    def accepts(self) -> frozenset[str]:
        """Terminals that can come next; $END where the text can end."""
        return frozenset(self._parser.accepts())

    def stack(self) -> list[Any]:
        """What was read and is in nothing larger yet: Operands, lark's tokens, others."""
        values: list[Any] = self._parser.parser_state.value_stack
        return values

    def before(self, terminal: str) -> Operand | None:
        """The operand that `terminal` would have on its left, if it came next."""
        parser = self._parser.copy(deepcopy_values=False)
        parser.feed_token(_token(terminal, ""))
        values = parser.parser_state.value_stack
        return next((each for each in reversed(values) if isinstance(each, Operand)), None)

    def _next(self, position: int) -> Piece:
        cut = _UNFINISHED.match(self._text, position)
        for terminals in (frozenset(self._choices()) | _ignored(), frozenset(_patterns())):
            found = _scanner(terminals).match(self._text, position)
            if found and (cut is None or found.end() >= cut.end()):  # not the r of r"…
                terminal = str(found.lastgroup)
                if found.group() in RESERVED and {"NAME", "LPAR"} <= self._choices():
                    terminal = _keyword(found.group())
                return Piece(terminal, position, found.end(), found.group())
        if cut:
            terminal = "REGEX" if cut.group(1) else "STRING"
            return Piece(terminal, position, cut.end(), cut.group(), is_closed=False)
        stuck = self._text[position]
        return Piece("", position, position + 1, stuck)

    def _choices(self) -> set[str]:
        return {name for name in self._parser.choices() if name in _patterns()}

    def _take(self, piece: Piece) -> None:
        for _ in range(MOST_FILLERS):
            if not piece.terminal or self._feed(piece.terminal, piece.text):
                break
            self.is_broken = True
            choices = self._choices()
            if piece.terminal in _starts() and "_AND" in choices:
                self._feed("_AND", "and")
            elif "NAME" in choices:
                self._feed("NAME", "_")
            elif "STRING" in choices:
                self._feed("STRING", '""')
            else:
                break
        self.is_broken |= not piece.terminal or not piece.is_closed

    def _feed(self, terminal: str, text: str) -> bool:
        if terminal not in self._parser.choices():
            return False
        from lark.exceptions import UnexpectedToken

        state = self._parser.parser_state
        states, values = state.state_stack.copy(), state.value_stack.copy()
        try:
            self._parser.feed_token(_token(terminal, text))
        except UnexpectedToken:  # after steps of the parser that were for nothing
            state.state_stack, state.value_stack = states, values
            return False
        return True


def _kinds(pieces: list[Piece], macros: Collection[str]) -> Iterator[Token]:
    """What each piece is for a reader: names by the catalogue, everything else by its terminal."""
    path = ""  # of the selector that is being read; "" where anything may follow
    for number, piece in enumerate(pieces):
        before = pieces[number - 1].terminal if number else ""
        after = pieces[number + 1].terminal if number + 1 < len(pieces) else ""
        kind = _KINDS.get(piece.terminal)
        if piece.terminal == "NAME":
            if after == "LPAR":
                known: Collection[str] = METHODS if before == "DOT" else FUNCTIONS
                kind, path = ("function" if piece.text in known else "unknown"), ""
            elif before == "DOT":
                path = operands.below(path, piece.text)
                kind = "field" if not path or _is_known(path) else "unknown"
            elif before == "DEEP":
                kind, path = "field", ""
            elif piece.text in macros or (piece.text in WORDS and after not in _STEPS):
                kind, path = "word", ""
            else:
                path = piece.text
                kind = "field" if _is_known(path) else "unknown"
        elif piece.terminal in ("EACH", "RSQB", "RPAR"):
            path = ""
        yield Token(
            piece.start,
            piece.end,
            kind or ("keyword" if piece.text.isalpha() else "operator"),
        )


def _is_known(path: str) -> bool:
    """Whether the catalogue has something at a path, or allows anything there."""
    if path in NAMES or operands.members(path):
        return True
    keys = path.split(".")
    above = next(
        (
            NAMES[name]
            for length in range(len(keys) - 1, 0, -1)
            if (name := ".".join(keys[:length])) in NAMES
        ),
        None,
    )
    return above is not None and above.is_open and above.name not in CLOSED


def terminal_of(text: str) -> str:
    """The terminal that a whole text is, taken where an operator can stand."""
    reader = Reader("a.b " + text)
    return list(reader.pieces())[-1].terminal


def _token(terminal: str, text: str) -> Any:
    import lark

    return lark.Token(terminal, text)


@functools.cache
def _lark() -> Any:
    """The grammar once more, with operands in the place of trees."""
    import importlib.resources

    import lark

    grammar = importlib.resources.files("kfl").joinpath("grammar.lark").read_text("utf-8")
    return lark.Lark(
        grammar,
        parser="lalr",
        lexer="contextual",
        maybe_placeholders=True,
        transformer=types.SimpleNamespace(**RULES),
    )


@functools.cache
def _patterns() -> dict[str, str]:
    """Each terminal's regex, in the order in which lark tries them."""
    terminals = sorted(
        _lark().terminals,
        key=lambda each: (
            -each.priority,
            -each.pattern.max_width,
            -len(each.pattern.value),
            each.name,
        ),
    )
    return {each.name: each.pattern.to_regexp() for each in terminals}


@functools.cache
def _ignored() -> frozenset[str]:
    return frozenset(_lark().ignore_tokens)


@functools.cache
def _starts() -> frozenset[str]:
    """Terminals with which a condition can begin."""
    return frozenset(_lark().parse_interactive("").accepts())


@functools.cache
def _scanner(terminals: frozenset[str]) -> re.Pattern[str]:
    return re.compile(
        "|".join(f"(?P<{name}>{regex})" for name, regex in _patterns().items() if name in terminals)
    )


@functools.cache
def _keyword(word: str) -> str:
    """The terminal of a reserved word."""
    return next(
        name for name, regex in _patterns().items() if name != "NAME" and re.fullmatch(regex, word)
    )
