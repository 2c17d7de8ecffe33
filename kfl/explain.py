"""A filter as a tree in text, one condition a line, and what is made of it. For `recorder kfl`."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from kfl import ast, coarse, core
from kfl.coretext import text
from kfl.fields import CATALOGUE, NAMES
from kfl.functions import FUNCTIONS
from kfl.kfl2 import KFL2
from kfl.show import show
from kfl.words import WORDS

if TYPE_CHECKING:
    from kfl.filter import Filter

WIDTH = 80
"""Columns of a line; only what cannot be broken is longer."""

_INDENT = "  "


def explain(chosen: Filter, tree: ast.Node, meaning: core.Core) -> str:
    """Lines without a last line break: the tree, an empty line, and what becomes of it."""
    lines: list[str] = []
    _explain(tree, 0, lines)
    lines.append("")
    for title, said in _facts(chosen, tree, meaning):
        lines += _wrapped(said, f"{title:<12}", " " * 12)
    return "\n".join(lines)


def _wrapped(said: str, first: str, others: str) -> list[str]:
    """Lines of at most WIDTH, where there are spaces to break them at."""
    return textwrap.wrap(
        said,
        WIDTH,
        initial_indent=first,
        subsequent_indent=others,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _facts(chosen: Filter, tree: ast.Node, meaning: core.Core) -> Iterator[tuple[str, str]]:
    """What becomes of the filter: pairs of a title and a text."""
    from kfl.columns import ColumnFilter  # brings in NumPy

    needed = chosen.packets()
    yield "dialect", _dialect(chosen.text, tree)
    yield "columns", ", ".join(_columns(meaning)) or "none"
    yield "kernel", coarse.show(needed.tree)
    names = needed.dissectors
    yield "dissectors", "all" if names is None else ", ".join(sorted(names)) or "none"
    yield "Parquet", chosen.prune().show()
    yield "capture", _left(ColumnFilter(meaning).undecided, "columns decide")
    yield "queries", _left(_beyond_sql(meaning), "SQL decides")


def _left(conditions: Iterable[core.Core], otherwise: str) -> str:
    """Say which conditions are left to ask of each entry."""
    asked = "; ".join(dict.fromkeys(map(text, conditions)))
    return f"{otherwise}, then each entry is asked: {asked}" if asked else f"{otherwise} alone"


def _beyond_sql(meaning: core.Core) -> list[core.Core]:
    from kfl.sql import where  # few filters are explained

    if where(meaning, {}).exact:
        return []
    return [condition for condition in _conditions(meaning) if not where(condition, {}).exact]


def _conditions(node: core.Core) -> Iterator[core.Core]:
    """The conditions that and, or, not and ? : put together."""
    if isinstance(node, core.All | core.Some | core.Not | core.IfElse):
        for child in core.children(node):
            yield from _conditions(child)
    else:
        yield node


# ---------------------------------------------------------------------------------- facts

_BY_PATH = {field.paths[0]: field.column for field in CATALOGUE if field.column and not field.guard}


def _columns(meaning: core.Core) -> list[str]:
    """The columns of ENTRIES that hold what is asked for, in the order of the text."""
    found: dict[str, None] = {}
    for node in core.walk(meaning):
        if isinstance(node, core.Word):
            found |= dict.fromkeys(_columns_of_word(node.name))
        elif isinstance(node, core.Guarded):
            found |= dict.fromkeys(_columns_of_word(node.word))
        elif isinstance(node, core.Record):
            found["record"] = None
        elif isinstance(node, core.Select):
            keys = [step.name for step in node.steps if isinstance(step, core.Key)]
            paths = [".".join(keys[:length]) for length in range(len(keys), 0, -1)]
            longest = next((path for path in paths if path in _BY_PATH), None)
            if longest is not None:
                found[_BY_PATH[longest]] = None
    return list(found)


def _columns_of_word(name: str) -> list[str]:
    word = WORDS[name]
    if word.transport:
        return ["transport"]
    also = {"tls": word.encrypted, "protocol_abbr": word.abbrs, "protocol_version": word.versions}
    return ["protocol_name", *(column for column, asked in also.items() if asked)]


_QUOTED = re.compile(
    r""" "(?:\\.|[^"\\\n])*" | '(?:\\.|[^'\\\n])*' | (?:\#|//)[^\n]* """, re.VERBOSE
)
_KFL1_OPERATOR, _KFL2_OPERATOR = re.compile(r"\b(?:and|or|not)\b"), re.compile(r"&&|\|\||!(?!=)")
_KFL1_ROOTS = frozenset({"request", "response", "protocol", "proto", "elapsedTime", "error"})
_KFL2_NAMES = frozenset(name for field in KFL2 for name in (field.name, *field.aliases))


def _dialect(written: str, tree: ast.Node) -> str:
    """KFL1 or KFL2, as operators and names tell; both have the same meaning."""
    plain = _QUOTED.sub(" ", written)
    words = {node.word for node in _nodes(tree) if isinstance(node, ast.Name)}
    is_kfl1 = bool(_KFL1_OPERATOR.search(plain) or words & _KFL1_ROOTS)
    is_kfl2 = bool(_KFL2_OPERATOR.search(plain) or words & _KFL2_NAMES)
    if is_kfl1 and is_kfl2:
        return "KFL1 and KFL2, mixed"
    return "KFL1" if is_kfl1 else "KFL2" if is_kfl2 else "the same in KFL1 and KFL2"


def _nodes(node: ast.Node) -> Iterator[ast.Node]:
    yield node
    for child in ast.children(node):
        yield from _nodes(child)


# ---------------------------------------------------------------------------------- tree


def _explain(node: ast.Node, level: int, lines: list[str]) -> None:
    match node:
        case ast.Logic(operator=operator, operands=operands):
            _line(level, "all of" if operator == "and" else "any of", lines)
            for operand in operands:
                _explain(operand, level + 1, lines)
        case ast.Unary(operator="not", operand=operand):
            _line(level, "not", lines)
            _explain(operand, level + 1, lines)
        case ast.Choice(condition=condition, yes=yes, no=no):
            for title, part in (("if", condition), ("then", yes), ("else", no)):
                _line(level, title, lines)
                _explain(part, level + 1, lines)
        case _:
            _line(level, show(node), lines)
            _add_meaning(_meaning(node), level, lines)


def _line(level: int, said: str, lines: list[str]) -> None:
    lines += _wrapped(said, _INDENT * level, _INDENT * (level + 2))


def _add_meaning(said: str, level: int, lines: list[str]) -> None:
    """Behind the condition, or below it when the line is full."""
    if not said:
        return
    if len(lines[-1]) + len(said) + 4 <= WIDTH:
        lines[-1] += f"  — {said}"
        return
    begin = _INDENT * (level + 2)
    lines += _wrapped(said, f"{begin}— ", f"{begin}  ")


def _meaning(node: ast.Node) -> str:
    match node:
        case ast.Name(word=word) if word in WORDS:
            return WORDS[word].meaning
        case ast.Call(receiver=None, name=name) if name in FUNCTIONS:
            return FUNCTIONS[name].partition(": ")[2]
        case ast.Binary(left=left, right=right):
            return "; ".join(dict.fromkeys(filter(None, (_field(left), _field(right)))))
        case _:
            return _field(node)


def _field(node: ast.Node) -> str:
    """What a selector stands for, when the catalogue has it."""
    if isinstance(node, ast.Call) and node.receiver is not None:
        return _field(node.receiver)
    if isinstance(node, ast.Name):
        found = NAMES.get(node.word)
        return f"{node.word}: {found.meaning}" if found else ""
    if isinstance(node, ast.Path) and isinstance(node.base, ast.Name):
        keys = [node.base.word]
        for step in node.steps:
            if not isinstance(step, ast.Key):
                break
            keys.append(step.name)
        for length in range(len(keys), 1, -1):
            name = ".".join(keys[:length])
            if name in NAMES:
                return f"{name}: {NAMES[name].meaning}"
    return ""
