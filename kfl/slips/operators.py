"""Operators of other languages, and KFL's own written otherwise."""

from __future__ import annotations

import re

from kfl.errors import KflError
from kfl.slips.written import MAX_SHOWN, RESERVED, error_at, operand_after, quoted, selector_before

_METHODS = {
    "contains": "contains",
    "includes": "contains",
    "startswith": "startsWith",
    "starts_with": "startsWith",
    "endswith": "endsWith",
    "ends_with": "endsWith",
    "matches": "matches",
    "regexp": "matches",
    "rlike": "matches",
}

_SIGNS = {
    "===": "==",
    "!==": "!=",
    "<>": "!=",
    "=<": "<=",
    "=>": ">=",
    "~=": '== r"..."',
    "=~": '== r"..."',
    "!~": '!= r"..."',
    "~": '== r"..."',
    "=": "==",
    ":": "==",
    "&": "and",
    "|": "or",
    "**": "*",
    "\u2265": ">=",
    "\u2264": "<=",
    "\u2260": "!=",
    "\u00ac": "not",
    "\u2227": "and",
    "\u2228": "or",
}


def sign(text: str, offset: int) -> KflError | None:
    """`=`, `=~`, `<>` and the like: the whole sign, of which reading may have taken a part."""
    signs = "=!<>~&|:*\u2265\u2264\u2260\u00ac\u2227\u2228"
    if offset >= len(text) or text[offset] not in signs:
        return None
    start, end = offset, offset + 1
    while start and text[start - 1] in signs:
        start -= 1
    while end < len(text) and text[end] in signs:
        end += 1
    sign = text[start:end]
    ours = _SIGNS.get(sign)
    if ours is None:
        return None
    written = f"`{ours}`" + {"and": " or `&&`", "or": " or `||`"}.get(ours, "")
    if ours in ("and", "or", "not", "*"):
        return error_at(text, start, f"`{sign}` is not an operator.", f"Write {written}.")
    if sign == ":" and not text[:start].rstrip()[-1:].isalnum():
        return None
    left = selector_before(text, start)
    right = operand_after(text, end)
    if 'r"' in ours:
        pattern = right[1:-1] if right[:1] in "\"'" else right.strip("/")
        right = f'r"{pattern}"' if '"' not in pattern else f"r'{pattern}'"
        ours = ours[:2]
    elif left != "x" and right != "..." and not _is_value(right):
        right = quoted(right)
    example = f"{left} {ours} {right}" if left != "x" else written
    hint = ', or `== r"..."` for a regex' if sign == "=" else ""
    return error_at(text, start, f"`{sign}` is not an operator.", f"Write {example}{hint}.")


def _is_value(written: str) -> bool:
    return (
        written[0] in "\"'"
        or re.fullmatch(r"-?\d+(\.\d+)?", written, re.ASCII) is not None
        or written in RESERVED
        or "." in written
    )


_SQL_LIKE = re.compile(r"(not\s+)?(i?like)\b", re.IGNORECASE)
_NULL = re.compile(r"is\s+(not\s+)?(?:null|nil|none)\b", re.IGNORECASE)
_BETWEEN = re.compile(r"between\s+(\S+)\s+and\s+([^\s)]+)", re.IGNORECASE)
_IS = re.compile(r"(is|eq|equals)\s+(not\s+)?([^\s()]+)", re.IGNORECASE)
_NOT_IN = re.compile(r"not\s+in\s*([\[(][^\])]*[\])]?)?", re.IGNORECASE)
_WORD = re.compile(r"[A-Za-z_]\w*", re.ASCII)


def sql(text: str, offset: int) -> KflError | None:
    """SQL's operators."""
    left = selector_before(text, offset)
    found = _SQL_LIKE.match(text, offset)
    if found:
        test = _like(left, operand_after(text, found.end()))
        test = f"not ({test})" if found.group(1) else test
        return _not_kfl(text, offset, found.group(), test)
    found = _NULL.match(text, offset)
    if found:
        return _not_kfl(text, offset, found.group(), f"{left} {'!=' if found[1] else '=='} nil")
    found = _IS.match(text, offset)
    if found and left != "x":
        operator = "!=" if found[2] else "=="
        right = found[3] if _is_value(found[3]) else quoted(found[3])
        return _not_kfl(text, offset, found[1], f"{left} {operator} {right[:MAX_SHOWN]}")
    found = _BETWEEN.match(text, offset)
    if found:
        return _not_kfl(text, offset, "between", f"{left} >= {found[1]} and {left} <= {found[2]}")
    found = _NOT_IN.match(text, offset)
    if found:
        items = (found.group(1) or "[...]").strip("()[]")[:MAX_SHOWN]
        return _not_kfl(text, offset, "not in", f"not ({left} in [{items}])")
    if re.match(r"IN\s*\(", text[offset : offset + 20]):
        items = text[text.index("(", offset) + 1 :].partition(")")[0][:MAX_SHOWN]
        return _not_kfl(text, offset, "IN (...)", f"{left} in [{items}]")
    return None


def _not_kfl(text: str, offset: int, what: str, ours: str) -> KflError:
    shown = " ".join(what.split())
    return error_at(text, offset, f"`{shown}` is not an operator of KFL.", f"Write {ours}.")


def _like(left: str, operand: str) -> str:
    """SQL's LIKE, as the plainest test that says the same."""
    if operand[:1] not in "\"'":
        return f'{left}.contains("...")'
    pattern = operand[1:-1]
    inner = pattern.strip("%")
    if "%" not in inner and "_" not in inner:
        before, after = pattern.startswith("%"), pattern.endswith("%")
        if before and after:
            return f"{left}.contains({quoted(inner)})"
        if before or after:
            return f"{left}.{'endsWith' if before else 'startsWith'}({quoted(inner)})"
        return f"{left} == {quoted(pattern)}"
    regex = re.escape(pattern).replace("%", ".*").replace("_", ".")
    return f'{left} == r"^{regex}$"'


def infix_method(text: str, offset: int) -> KflError | None:
    """`x contains "y"`, and `x.contains "y"`."""
    called = re.search(r"\.([A-Za-z_]+)\s*\Z", text[max(0, offset - 20) : offset], re.ASCII)
    if called and called[1] in _METHODS.values():
        at = offset - len(called.group()) + 1
        right = operand_after(text, offset)
        return error_at(
            text,
            at,
            f"`{called[1]}` is called without parentheses.",
            f"Write {called[1]}({right if right == '...' else quoted(right)}).",
        )
    found = _WORD.match(text, offset)
    name = _METHODS.get(found.group().lower()) if found else None
    if found is None or name is None:
        return None
    left = selector_before(text, offset)
    right = quoted(operand_after(text, found.end()))
    return error_at(
        text,
        offset,
        f"`{found.group()}` is not an operator in KFL, but a call.",
        f"Write {left}.{name}({right}).",
    )


def capital_keyword(text: str, offset: int) -> KflError | None:
    """`AND`, here or right before: `NOT http` is read as a name and a name."""
    here = _WORD.match(text, offset)
    before = re.search(r"\b([A-Za-z]{2,5})\s*\Z", text[max(0, offset - 40) : offset], re.ASCII)
    start = max(0, offset - 40)
    for found, base in ((here, 0), (before, start)):
        if found is None:
            continue
        word = found.group(1) if found is before else found.group()
        if word.lower() in RESERVED and word not in RESERVED:
            return error_at(
                text,
                base + found.start(),
                f"`{word}` is not a keyword.",
                f"Write `{word.lower()}`: keywords are in lower case.",
            )
    return None


_SQL_FRAME = re.compile(r"\s*(select\b.*?\bwhere|where|filter|kfl)\b\s*(?=[A-Za-z(!])", re.I | re.S)


def sql_frame(text: str, offset: int) -> KflError | None:
    """`SELECT ... WHERE` before a condition."""
    found = _SQL_FRAME.match(text[:400])
    if not found or found.end() < offset - 40:
        return None
    return error_at(
        text,
        found.start(1),
        f"`{found.group(1)[:MAX_SHOWN]}` does not begin a filter.",
        "Write the condition alone.",
    )
