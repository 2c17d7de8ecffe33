"""A core tree back to text, for people: `coarse` and `explain` show conditions with it.

Not quite KFL: a value under a protocol is written without it, and regexes as r"...".
"""

from __future__ import annotations

from kfl import ast, core
from kfl.show import show, show_steps, show_text


def text(node: core.Core) -> str:
    """The condition or value."""
    match node:
        case core.Const(value=value):
            return _constant(value)
        case core.Select(steps=steps):
            return show_steps(steps).removeprefix(".")
        case core.Down(base=base, steps=steps):
            return text(base) + show_steps(steps)
        case core.Guarded(value=value) | core.Present(value=value):
            return text(value)
        case core.First(values=values):
            return " or ".join(map(text, values))
        case core.Gather(values=many) | core.Items(items=many):
            return f"[{', '.join(map(text, many))}]"
        case core.Decode(kind=kind, text=inner):
            return f"{text(inner)}.{kind}()"
        case core.Size(of=of):
            return f"size({text(of)})"
        case core.MapGet(map=map_, key=key, default=default):
            return f"map_get({', '.join(map(text, (map_, key, default)))})"
        case core.Arithmetic(operator=operator, left=left, right=right):
            return f"({text(left)} {operator} {text(right)})"
        case core.IfElse(condition=condition, yes=yes, no=no):
            return f"({text(condition)} ? {text(yes)} : {text(no)})"
        case _:
            return _test(node)


def _test(node: core.Core) -> str:
    match node:
        case core.Compare(operator=operator, left=left, right=right):
            return f"{text(left)} {operator} {text(right)}"
        case core.Within(item=item, container=container):
            return f"{text(item)} in {text(container)}"
        case core.TextTest(kind=kind, text=whole, part=part):
            return f"{text(whole)}.{kind}({text(part)})"
        case core.Search(text=whole, pattern=pattern):
            return f"{text(whole)}.matches({_constant(pattern)})"
        case core.Word(name=name):
            return name
        case core.Record(name=name):
            return f"record({show_text(name)})"
        case core.Not(operand=operand):
            return f"not ({text(operand)})"
        case core.All(operands=operands):
            return f"({' and '.join(map(text, operands))})"
        case core.Some(operands=operands):
            return f"({' or '.join(map(text, operands))})"
        case _:
            raise AssertionError(f"{type(node).__name__} is no test")


def _constant(value: core.Constant) -> str:
    if isinstance(value, core.Pattern):
        return show(ast.Regex(value.text))
    if isinstance(value, tuple):
        return f"[{', '.join(map(_constant, value))}]"
    if isinstance(value, str):
        return show_text(value)
    if value is None:
        return "nil"
    return str(value).lower() if isinstance(value, bool) else repr(value)
