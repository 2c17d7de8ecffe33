"""A filter as a tree in text, one condition a line. For `recorder kfl`, and for who wonders why."""

from __future__ import annotations

from kfl import ast
from kfl.fields import NAMES
from kfl.functions import FUNCTIONS
from kfl.show import show
from kfl.words import WORDS

_INDENT = "  "


def explain(tree: ast.Node) -> str:
    """Lines without a last line break."""
    lines: list[str] = []
    _explain(tree, 0, lines)
    return "\n".join(lines)


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
            meaning = _meaning(node)
            _line(level, f"{show(node)}  — {meaning}" if meaning else show(node), lines)


def _line(level: int, text: str, lines: list[str]) -> None:
    lines.append(_INDENT * level + text)


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
