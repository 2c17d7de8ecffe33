"""A tree back to text, in KFL1's spelling.

`parse(show(tree)).tree == tree` holds for every parsed tree.
"""

from __future__ import annotations

import re

from kfl import ast

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")

# How tightly each form binds; an operand that binds less tightly than its place gets parentheses.
_CHOICE, _OR, _AND, _COMPARE, _SUM, _PRODUCT, _UNARY, _POSTFIX = range(8)

_BINDING = {"+": _SUM, "-": _SUM, "*": _PRODUCT, "/": _PRODUCT, "%": _PRODUCT}

_ESCAPES = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t"}


def show(node: ast.Node) -> str:
    """The filter as text."""
    return _show(node, _CHOICE)


def show_text(value: str) -> str:
    """A text as KFL writes it, in double quotes."""
    return '"' + "".join(map(_character, value)) + '"'


def show_steps(steps: tuple[ast.Step, ...]) -> str:
    """The steps of a selector, beginning with their dots and brackets."""
    return "".join(map(_step, steps))


def _character(character: str) -> str:
    if character in _ESCAPES:
        return _ESCAPES[character]
    if character < " " or character in "\x7f\x85\u2028\u2029":
        return f"\\u{ord(character):04x}"
    return character


def _show(node: ast.Node, place: int) -> str:
    binding, text = _form(node)
    return text if binding >= place else f"({text})"


def _form(node: ast.Node) -> tuple[int, str]:
    """How tightly the node binds, and its text."""
    match node:
        case ast.Literal(value=value):
            return _literal(value)
        case ast.Regex(pattern=pattern):
            unescaped = '"' in re.sub(r"\\.", "", pattern)
            return _POSTFIX, f"r'{pattern}'" if unescaped else f'r"{pattern}"'
        case ast.ListOf(items=items):
            return _POSTFIX, f"[{_list(items)}]"
        case ast.Name(word=word):
            return _POSTFIX, word
        case ast.Path(base=base, steps=steps):
            return _POSTFIX, _base(base) + show_steps(steps)
        case ast.Call(receiver=None, name=name, arguments=arguments):
            return _POSTFIX, f"{name}({_list(arguments)})"
        case ast.Call(receiver=receiver, name=name, arguments=arguments):
            assert receiver is not None
            return _POSTFIX, f"{_base(receiver)}.{name}({_list(arguments)})"
        case ast.Unary(operator=operator, operand=operand):
            if operator == "not":
                return _UNARY, f"not {_show(operand, _UNARY)}"
            inner = _show(operand, _UNARY)
            return _UNARY, f"- {inner}" if inner.startswith("-") else f"-{inner}"
        case ast.Binary(operator=operator, left=left, right=right):
            own = _BINDING.get(operator, _COMPARE)
            return own, f"{_show(left, own)} {operator} {_show(right, own + 1)}"
        case ast.Logic(operator=operator, operands=operands):
            own = _AND if operator == "and" else _OR
            # `and` inside of `or` gets parentheses: without them, `check` would warn.
            return own, f" {operator} ".join(_show(operand, _COMPARE) for operand in operands)
        case ast.Choice(condition=condition, yes=yes, no=no):
            return (
                _CHOICE,
                f"{_show(condition, _OR)} ? {_show(yes, _CHOICE)} : {_show(no, _CHOICE)}",
            )


def _base(node: ast.Node) -> str:
    """What a step or a method follows: `3.x` would be read as a number, so numbers get brackets."""
    if isinstance(node, ast.Literal) and not isinstance(node.value, str):
        return f"({_show(node, _POSTFIX)})"
    return _show(node, _POSTFIX)


def _literal(value: bool | int | float | str | None) -> tuple[int, str]:
    if value is None:
        return _POSTFIX, "nil"
    if value is True:
        return _POSTFIX, "true"
    if value is False:
        return _POSTFIX, "false"
    if isinstance(value, str):
        return _POSTFIX, show_text(value)
    text = repr(value)
    return (_UNARY if text.startswith("-") else _POSTFIX), text


def _list(items: tuple[ast.Node, ...]) -> str:
    return ", ".join(_show(item, _CHOICE) for item in items)


def _step(step: ast.Step) -> str:
    match step:
        case ast.Key(name=name):
            return f".{name}" if _NAME.match(name) else f"[{show_text(name)}]"
        case ast.Index(number=number):
            return f"[{number}]"
        case ast.Each():
            return ".*"
        case ast.Deep(name=name):
            return f"..{name}"
