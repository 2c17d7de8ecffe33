"""Text to tree.

lark is imported and the grammar read at the first parse, so that importing the package stays quick.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from kfl import ast
from kfl.errors import Diagnostic, KflError
from kfl.foreign import foreign_dialect
from kfl.slips import slip_at
from kfl.slips.written import RESERVED as RESERVED
from kfl.slips.written import brackets, error_at, place

MAX_LENGTH = 16_384
"""Characters of a filter. A person writes a few hundred; dashboards join many of them."""

MAX_DEPTH = 100
"""Levels of a tree: deeper than any filter of a person, well within Python's own stack."""

MAX_DEEP = 2
"""Steps `..` of one path: each looks at everything below all that the one before it found."""

MAX_NESTING = 200
"""Open brackets at one place, counted before parsing."""

MAX_DIGITS = 300
"""Digits of a number: more cannot be a finite double."""

_ESCAPES = {'"': '"', "'": "'", "\\": "\\", "n": "\n", "r": "\r", "t": "\t", "/": "/"}

_NAMES_OF_TERMINALS = {
    "NAME": "a name",
    "STRING": "a text",
    "INTEGER": "a number",
    "DECIMAL": "a number",
    "REGEX": "a regex",
    "LSQB": "`[`",
    "RSQB": "`]`",
    "LPAR": "`(`",
    "RPAR": "`)`",
    "COMMA": "`,`",
    "COLON": "`:`",
    "QMARK": "`?`",
    "DOT": "`.`",
    "COMPARE": "a comparison",
    "IN": "`in`",
    "_OR": "`or`",
    "_AND": "`and`",
}


@dataclass(frozen=True, slots=True)
class Parsed:
    """A tree and what is doubtful about how it was written."""

    tree: ast.Node
    warnings: list[Diagnostic] = field(default_factory=list)


def parse(text: str) -> Parsed:
    """The tree of a filter; an empty filter is `true`. Raises KflError with the place."""
    if len(text) > MAX_LENGTH:
        raise KflError(
            f"The filter has {len(text)} characters; at most {MAX_LENGTH} are allowed.",
            suggestion="Split it, or ask for less at once.",
        )
    if _is_blank(text):
        return Parsed(ast.Literal(True))
    _check_characters(text)
    _check_nesting(text)
    builder = _Builder()
    tree = _run(text, builder)
    levels = ast.depth(tree)
    if levels > MAX_DEPTH:
        raise KflError(
            f"The filter is nested {levels} levels deep; at most {MAX_DEPTH} are allowed.",
            suggestion="Use fewer parentheses and steps.",
        )
    _check_deep(tree)
    return Parsed(tree, builder.warnings)


def _check_deep(tree: ast.Node) -> None:
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        waiting.extend(ast.children(node))
        if isinstance(node, ast.Path):
            deep = [step for step in node.steps if isinstance(step, ast.Deep)]
            if len(deep) > MAX_DEEP:
                raise KflError(
                    f"A path has {len(deep)} times `..`; at most {MAX_DEEP} are allowed.",
                    node.at.line,
                    node.at.column,
                    "Name the steps between them.",
                )


def is_readable(text: str) -> bool:
    """Whether the grammar takes a text for a filter, whatever its names."""
    from lark.exceptions import UnexpectedInput

    try:
        _lark().parse(text)
    except UnexpectedInput:
        return False
    return True


def _is_blank(text: str) -> bool:
    return not re.sub(r"(#|//)[^\n]*", "", text).strip(" \t\r\n")


def _check_characters(text: str) -> None:
    for found in re.finditer("[\ud800-\udfff]", text):
        raise error_at(
            text,
            found.start(),
            "The filter is not valid Unicode here: half a character.",
            "Take it out.",
        )


def _check_nesting(text: str) -> None:
    level = 0
    for offset, bracket in brackets(text):
        level += 1 if bracket in "([" else -1
        if level > MAX_NESTING:
            raise error_at(
                text,
                offset,
                f"More than {MAX_NESTING} brackets are open at once.",
                "Use fewer parentheses.",
            )


@functools.cache
def _lark() -> Any:
    import importlib.resources

    import lark

    grammar = importlib.resources.files("kfl").joinpath("grammar.lark").read_text("utf-8")
    return lark.Lark(grammar, parser="lalr", lexer="contextual", maybe_placeholders=True)


def _run(text: str, builder: _Builder) -> ast.Node:
    from lark.exceptions import UnexpectedCharacters, UnexpectedInput, UnexpectedToken

    try:
        events = _lark().parse(text)
    except UnexpectedCharacters as error:
        raise _bad_character(text, int(error.pos_in_stream or 0)) from None
    except UnexpectedToken as error:
        raise _bad_token(text, error) from None
    except UnexpectedInput as error:
        raise KflError("The filter cannot be read here.", error.line, error.column) from None
    return builder.build(events)


def _bad_character(text: str, offset: int) -> KflError:
    meant = foreign_dialect(text) or slip_at(text, offset)
    if meant:
        return meant
    return error_at(
        text, offset, f"`{text[offset]}` is not expected here.", "Put text into quotes."
    )


def _bad_token(text: str, error: Any) -> KflError:
    token = error.token
    is_end = token.type == "$END"
    offset = len(text.rstrip()) if is_end else int(token.start_pos)
    meant = foreign_dialect(text) or slip_at(text, offset)
    if meant:
        return meant
    before = re.search(r"\b(or|and|in|not)\s*\Z", text[:offset])
    if before and not is_end:  # it was taken for a name, since none of these can begin a condition
        return _misplaced(before.group(1), ast.Position(*place(text, before.start())))
    message = f"`{token[:40]}` is not expected here."
    if is_end:
        message = "The filter ends too early."
        if before:
            return error_at(text, offset, message, f"Write a condition after `{before.group(1)}`.")
    return error_at(text, offset, message, _expected(error))


def _misplaced(word: str, at: ast.Position) -> KflError:
    return KflError(
        f"`{word}` stands where a condition is needed.",
        at.line,
        at.column,
        "Something is missing before or after it.",
    )


def _expected(error: Any) -> str:
    """What could stand there, when few things could."""
    terminals = set(getattr(error, "accepts", None) or error.expected or ())
    if "NAME" in terminals and len(terminals) > 3:
        return "A name, a text, a number or `(` is needed here."
    named = sorted({_NAMES_OF_TERMINALS[name] for name in terminals if name in _NAMES_OF_TERMINALS})
    if not named or len(named) > 4:
        return "Join conditions with `and` or `or`, and put text into quotes."
    return f"Here can stand {' or '.join(named)}."


class _Builder:
    """Turns lark's tree into ours, without recursion on the length of the text."""

    def __init__(self) -> None:
        self.warnings: list[Diagnostic] = []
        self._grouped: dict[int, ast.Node] = {}  # what stood in parentheses, by id()

    def build(self, root: Any) -> ast.Node:
        """Post-order over lark's tree with a stack of its own."""
        results: dict[int, Any] = {}
        stack: list[tuple[Any, bool]] = [(root, False)]
        while stack:
            tree, ready = stack.pop()
            if not hasattr(tree, "children"):
                results[id(tree)] = tree
                continue
            if ready:
                values = [
                    None if child is None else results.pop(id(child)) for child in tree.children
                ]
                action: Callable[[list[Any]], Any] = getattr(self, f"on_{tree.data}")
                results[id(tree)] = action(values)
                continue
            stack.append((tree, True))
            stack.extend((child, False) for child in reversed(tree.children) if child is not None)
        node: ast.Node = results[id(root)]
        return node

    def on_group(self, values: list[Any]) -> ast.Node:
        node: ast.Node = values[0]
        self._grouped[id(node)] = node
        return node

    def on_literal(self, values: list[Any]) -> ast.Node:
        token = values[0]
        at = _at(token)
        match token.type:
            case "NIL":
                return ast.Literal(None, at)
            case "TRUE":
                return ast.Literal(True, at)
            case "FALSE":
                return ast.Literal(False, at)
            case "INTEGER" | "DECIMAL":
                return ast.Literal(_number(token), at)
            case "STRING":
                return ast.Literal(unescape(str(token)[1:-1], at), at)
            case _:
                return ast.Regex(str(token)[2:-1], at)

    def on_name(self, values: list[Any]) -> ast.Node:
        token = values[0]
        word = str(token)
        at = _at(token)
        if word in RESERVED:
            raise _misplaced(word, at)
        return ast.Name(word, at)

    def on_arguments(self, values: list[Any]) -> list[Any]:
        return values

    def on_list_of(self, values: list[Any]) -> ast.Node:
        items = tuple(values[0] or ())
        return ast.ListOf(items, items[0].at if items else ast.START)

    def on_call(self, values: list[Any]) -> ast.Node:
        name, arguments = values
        return ast.Call(None, str(name), tuple(arguments or ()), _at(name))

    def on_method(self, values: list[Any]) -> ast.Node:
        receiver, name, arguments = values
        return ast.Call(receiver, str(name), tuple(arguments or ()), _at(name))

    def on_key(self, values: list[Any]) -> ast.Node:
        return _step(values[0], ast.Key(str(values[1])))

    def on_quoted_key(self, values: list[Any]) -> ast.Node:
        return _step(values[0], ast.Key(unescape(str(values[1])[1:-1], _at(values[1]))))

    def on_index(self, values: list[Any]) -> ast.Node:
        number = _number(values[1])
        if number > 2**31 - 1:
            at = _at(values[1])
            raise KflError(
                f"{number} is too large for a place in a list.",
                at.line,
                at.column,
                "Places count from 0.",
            )
        return _step(values[0], ast.Index(int(number)))

    def on_each(self, values: list[Any]) -> ast.Node:
        return _step(values[0], ast.Each())

    def on_deep(self, values: list[Any]) -> ast.Node:
        return _step(values[0], ast.Deep(str(values[2])))

    def on_minus(self, values: list[Any]) -> ast.Node:
        token, operand = values
        if (
            isinstance(operand, ast.Literal)
            and not isinstance(operand.value, bool)
            and isinstance(operand.value, int | float)
        ):
            return ast.Literal(-operand.value, _at(token))
        return ast.Unary("-", operand, _at(token))

    def on_negate(self, values: list[Any]) -> ast.Node:
        token, operand = values
        return ast.Unary("not", operand, _at(token))

    def on_arithmetic(self, values: list[Any]) -> ast.Node:
        left, token, right = values
        return ast.Binary(str(token), left, right, left.at)

    def on_compare(self, values: list[Any]) -> ast.Node:
        left, token, right = values
        bare_not = (
            isinstance(left, ast.Unary) and left.operator == "not" and id(left) not in self._grouped
        )
        if bare_not:
            self.warnings.append(
                Diagnostic(
                    False,
                    left.at.line,
                    left.at.column,
                    f"`not` binds tighter than `{token}`: it is applied to the left side alone.",
                    f"Write not (... {token} ...) to turn the comparison around.",
                )
            )
        return ast.Binary(str(token), left, right, left.at)

    def on_both(self, values: list[Any]) -> ast.Node:
        return ast.Logic("and", tuple(values), values[0].at)

    def on_either(self, values: list[Any]) -> ast.Node:
        for operand in values:
            if isinstance(operand, ast.Logic) and operand.operator == "and":
                if id(operand) in self._grouped:
                    continue
                self.warnings.append(
                    Diagnostic(
                        False,
                        operand.at.line,
                        operand.at.column,
                        "`and` and `or` stand beside each other; `and` is taken first.",
                        "Write parentheses, as in a and (b or c), to say what you mean.",
                    )
                )
        return ast.Logic("or", tuple(values), values[0].at)

    def on_choice(self, values: list[Any]) -> ast.Node:
        condition, yes, no = values
        return ast.Choice(condition, yes, no, condition.at)


def _at(token: Any) -> ast.Position:
    return ast.Position(int(token.line), int(token.column))


def _step(base: ast.Node, step: ast.Step) -> ast.Node:
    if isinstance(base, ast.Path):
        return ast.Path(base.base, (*base.steps, step), base.at)
    return ast.Path(base, (step,), base.at)


def _number(token: Any) -> int | float:
    at = _at(token)
    if len(token) <= MAX_DIGITS:
        number = int(token) if token.type == "INTEGER" else float(token)
        if number != float("inf"):
            return number
    raise KflError(
        "The number is too large.",
        at.line,
        at.column,
        "Numbers go up to 1.7e308, exactly to 2**64.",
    )


def unescape(text: str, at: ast.Position) -> str:
    """The text that `text`, from between the quotes, stands for."""

    def one(found: re.Match[str]) -> str:
        escape = found.group(1)
        if escape[0] == "u" and len(escape) == 5:
            return chr(int(escape[1:], 16))
        if escape in _ESCAPES:
            return _ESCAPES[escape]
        raise KflError(
            f"`\\{escape}` is not an escape.",
            at.line,
            at.column,
            "Known are \\\" \\' \\\\ \\n \\r \\t and \\uXXXX; write \\\\ for a backslash.",
        )

    plain = re.sub(r"\\(u[0-9A-Fa-f]{4}|.)", one, text)
    # \uD83D\uDE00 is one character written as two halves.
    joined = plain.encode("utf-16-le", "surrogatepass")
    try:
        return joined.decode("utf-16-le")
    except UnicodeDecodeError:
        raise KflError(
            "`\\u` names half a character.",
            at.line,
            at.column,
            "Write both halves, as in \\uD83D\\uDE00, or the character itself.",
        ) from None
