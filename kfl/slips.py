"""What was probably meant where a filter cannot be read. `parse` asks when the grammar stops.

Each slip is a pattern of the text right at the place where reading stopped, and what to write
instead, in the words of that filter.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import TypeAlias

from kfl.errors import KflError

RESERVED = frozenset({"or", "and", "in", "not", "true", "false", "nil", "null"})

MAX_SHOWN = 60
"""Characters of a filter that a message repeats."""

# Texts and comments. A text that does not end is taken to its line's end, so that looking for them
# takes time in proportion to the filter.
_SKIPPED = re.compile(
    r'"(?:\\.|[^"\\\n])*+"?|\'(?:\\.|[^\'\\\n])*+\'?|(?:#|//)[^\n]*',
)

_SELECTOR = re.compile(
    r"[A-Za-z_]\w*+(?:\.\.?[A-Za-z_]\w*+|\.\*|\[(?:\d++|\"[^\"\n]*+\"|'[^'\n]*+')\])*+\s*\Z",
    re.ASCII,
)
_OPERAND = re.compile(r"""\s*("[^"\n]*+"|'[^'\n]*+'|[^\s()\[\],]++)""")

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

_QUOTES = dict.fromkeys("\u201c\u201d\u201e\u201f\u00ab\u00bb\u2033", '"')
_QUOTES |= dict.fromkeys("\u2018\u2019\u201a\u201b\u2032\u00b4`", "'")

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

_UNITS = {"ms", "us", "ns", "s", "m", "h", "d", "sec", "min", "secs", "mins"}
_SHORT_UNITS = {"sec": "s", "secs": "s", "min": "m", "mins": "m"}
_OCTETS = {"b": 1, "k": 1024, "kb": 1024, "kib": 1024, "mb": 1 << 20, "mib": 1 << 20, "gb": 1 << 30}

Slip: TypeAlias = Callable[[str, int], "KflError | None"]


def place(text: str, offset: int) -> tuple[int, int]:
    """Line and column of an offset, from 1."""
    before = text[:offset]
    return before.count("\n") + 1, offset - (before.rfind("\n") + 1) + 1


def blank(text: str) -> str:
    """The filter with spaces for its texts and comments, so that offsets stay."""
    return _SKIPPED.sub(lambda found: " " * len(found.group()), text)


def error_at(text: str, offset: int, message: str, suggestion: str) -> KflError:
    """An error at an offset."""
    return KflError(message, *place(text, offset), suggestion)


def slip_at(text: str, offset: int) -> KflError | None:
    """What was meant at the offset where reading stopped; None when nothing is known."""
    for slip in _SLIPS:
        found = slip(text, offset)
        if found is not None:
            return found
    return None


def _selector_before(text: str, offset: int) -> str:
    """The selector that ends at the offset, or `x`."""
    line = text[max(0, offset - 200) : offset]
    best = "x"
    for start in range(len(line) - 1, -1, -1):
        if line[start].isalpha() or line[start] == "_":
            if start and (line[start - 1].isalnum() or line[start - 1] in "_.\"'"):
                continue
            found = _SELECTOR.match(line, start)
            if found:
                best = found.group().rstrip()
            elif best != "x":
                break
    return best


def _operand_after(text: str, offset: int) -> str:
    found = _OPERAND.match(text, offset)
    return found.group(1)[:MAX_SHOWN] if found else "..."


def quoted(word: str) -> str:
    """A word as a KFL text; a text stays as it is."""
    if word[:1] in "\"'" and word[-1:] == word[:1] and len(word) > 1:
        return word
    return '"' + word.replace("\\", "\\\\").replace('"', '\\"') + '"'


# ---------------------------------------------------------------------------------- characters


def _typographic(text: str, offset: int) -> KflError | None:
    character = text[offset : offset + 1]
    plain = _QUOTES.get(character)
    if not character or plain is None:
        return None
    return error_at(
        text,
        offset,
        f"`{character}` is not a quote of KFL.",
        f"Put text between two {plain}, as typed on a keyboard.",
    )


def _invisible(text: str, offset: int) -> KflError | None:
    character = text[offset : offset + 1]
    if not character or character.isprintable() or character in "\n\r\t":
        return None
    what = "space" if character.isspace() else "character"
    return error_at(
        text,
        offset,
        f"A {what} that cannot be seen (U+{ord(character):04X}) stands here.",
        "Put a plain space there." if what == "space" else "Take it out.",
    )


def _open_text(text: str, offset: int) -> KflError | None:
    quote = text[offset : offset + 1]
    if quote not in ('"', "'"):
        return None
    found = _SKIPPED.match(text, offset)
    if found is None or (len(found.group()) > 1 and _is_closed(found.group())):
        return None
    return error_at(
        text,
        offset,
        "A text begins here and does not end on this line.",
        f"Close it with {quote}, and write a line break in it as \\n.",
    )


def _is_closed(written: str) -> bool:
    body = written[1:-1]
    backslashes = len(body) - len(body.rstrip("\\"))
    return written[-1] == written[0] and backslashes % 2 == 0


def _braces(text: str, offset: int) -> KflError | None:
    character = text[offset : offset + 1]
    if character in ("{", "}") and character:
        return error_at(
            text,
            offset,
            f"`{character}` has no meaning in KFL.",
            "A list stands in square brackets: x in [80, 443].",
        )
    if character == ";":
        return error_at(text, offset, "`;` does not end a filter.", "Leave it out.")
    if character in ("$", "@") and character:
        return error_at(
            text,
            offset,
            f"`{character}` does not begin a name in KFL.",
            "Write the name of a field alone, as in request.path.",
        )
    return None


# ---------------------------------------------------------------------------------- operators


def _sign(text: str, offset: int) -> KflError | None:
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
    left = _selector_before(text, start)
    right = _operand_after(text, end)
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


def _sql(text: str, offset: int) -> KflError | None:
    """SQL's operators."""
    left = _selector_before(text, offset)
    found = _SQL_LIKE.match(text, offset)
    if found:
        test = _like(left, _operand_after(text, found.end()))
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


def _infix_method(text: str, offset: int) -> KflError | None:
    """`x contains "y"`, and `x.contains "y"`."""
    called = re.search(r"\.([A-Za-z_]+)\s*\Z", text[max(0, offset - 20) : offset], re.ASCII)
    if called and called[1] in _METHODS.values():
        at = offset - len(called.group()) + 1
        right = _operand_after(text, offset)
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
    left = _selector_before(text, offset)
    right = quoted(_operand_after(text, found.end()))
    return error_at(
        text,
        offset,
        f"`{found.group()}` is not an operator in KFL, but a call.",
        f"Write {left}.{name}({right}).",
    )


def _capital_keyword(text: str, offset: int) -> KflError | None:
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


def _sql_frame(text: str, offset: int) -> KflError | None:
    found = _SQL_FRAME.match(text[:400])
    if not found or found.end() < offset - 40:
        return None
    return error_at(
        text,
        found.start(1),
        f"`{found.group(1)[:MAX_SHOWN]}` does not begin a filter.",
        "Write the condition alone.",
    )


# ---------------------------------------------------------------------------------- values

_RUN_BEFORE = re.compile(r"[^\s()\[\],\"'=!<>]*\Z")
_RUN_AFTER = re.compile(r"[^\s()\[\],\"'=!<>]*")
_CLASS = re.compile(r"([1-5])(?:xx|XX|\*\*|\*)\Z")
_AMOUNT = re.compile(r"(?:\d+(?:\.\d+)?[a-zµ]+)+\Z", re.IGNORECASE)
_COMPARISON = re.compile(r"(==|!=|<=|>=|<|>)\s*\Z")


def _bare_value(text: str, offset: int) -> KflError | None:
    """`5xx`, `5ms`, `10.0.0.1`, `/api/cart`: the run of characters in which reading stopped."""
    before = _RUN_BEFORE.search(text[max(0, offset - 300) : offset])
    after = _RUN_AFTER.match(text, offset)
    assert before is not None
    assert after is not None
    start = offset - len(before.group())
    run = before.group() + after.group()
    if not run:
        return None
    comparison = _COMPARISON.search(text[max(0, start - 20) : start])
    status = _CLASS.match(run)
    if status and comparison:
        left = _selector_before(text, start - len(comparison.group()))
        ours = _status_class(left, comparison.group(1), int(status.group(1)) * 100)
        return error_at(text, start, f"`{run}` is not a number.", f"Write {ours}.")
    joined = re.match(r"(\d+)(and|or|in)\b|(\d+)(and|or)(?=[a-z])", run, re.ASCII)
    if joined:
        return error_at(
            text,
            start + len(joined[1] or joined[3]),
            f"`{joined[2] or joined[4]}` is not set apart from the number.",
            "Put a space before and after it.",
        )
    if _AMOUNT.match(run):
        return error_at(text, start, f"`{run}` is not a number.", _amount(run))
    is_value = comparison or text[:start].rstrip()[-1:] in ("[", ",")
    looks = run[0] in "/" or re.match(r"\d+[.:-]|[0-9a-fA-F]*::", run) or not run[0].isalpha()
    if not is_value or not (looks or re.search(r"[/:.@-]", run)):
        return None
    shown = run[:MAX_SHOWN]
    if run.isdigit():
        return None
    written = re.fullmatch(r"\+?([\d_]*)(\.\d*)?", run, re.ASCII)
    if written:
        ours = (written[1].replace("_", "") or "0") + (written[2] or "").rstrip(".")
        return error_at(text, start, f"`{shown}` is not how numbers are written.", f"Write {ours}.")
    if re.fullmatch(r"\d{4}-\d\d-\d\d[Tt][\d:.]+([Zz]|[+-]\d\d:\d\d)", run, re.ASCII):
        return error_at(
            text,
            start,
            f"`{shown}` is a time without quotes.",
            f"Write timestamp({quoted(shown)}).",
        )
    return error_at(text, start, f"`{shown}` is a text without quotes.", f"Write {quoted(shown)}.")


def _status_class(left: str, operator: str, first: int) -> str:
    above = first + 100
    return {
        "==": f"{left} >= {first} and {left} < {above}",
        "!=": f"({left} < {first} or {left} >= {above})",
        ">=": f"{left} >= {first}",
        ">": f"{left} >= {above}",
        "<": f"{left} < {first}",
        "<=": f"{left} < {above}",
    }[operator]


def _amount(run: str) -> str:
    parts = re.findall(r"(\d+(?:\.\d+)?)([a-zµ]+)", run, re.IGNORECASE)
    if all(unit in _UNITS for _, unit in parts):
        text = "".join(f"{count}{_SHORT_UNITS.get(unit, unit)}" for count, unit in parts)
        return f'Write duration("{text}").'
    count, unit = parts[0]
    octets = _OCTETS.get(unit.lower())
    if len(parts) == 1 and octets and "." not in count and len(count) < 15:
        return f"Write {int(count) * octets}: sizes are octets."
    return f"Write a number without letters, or {quoted(run[:MAX_SHOWN])} for a text."


def _other_letters(text: str, offset: int) -> KflError | None:
    """`request.größe`: names are ASCII, keys in quotes are not."""
    if not text[offset : offset + 1].isalpha() or text[offset].isascii():
        return None
    before = re.search(r"\w*\Z", text[max(0, offset - MAX_SHOWN) : offset])
    after = re.match(r"\w*", text[offset : offset + MAX_SHOWN])
    assert before is not None
    assert after is not None
    start, word = offset - len(before[0]), before[0] + after[0]
    ours = quoted(word)
    if text[:start].endswith("."):
        start, word, ours = start - 1, f".{word}", f"[{ours}]"
    return error_at(text, start, f"`{word}` has letters that a name cannot have.", f"Write {ours}.")


def _bare_key(text: str, offset: int) -> KflError | None:
    """`x[User-Agent]`, `x[-1]`, `x[*]`, `x.0`, `x."a b"`."""
    before = re.search(r"[\w\])]\s*\[\s*\Z", text[max(0, offset - 20) : offset])
    if before:
        key = re.match(r"[^\]\n]*", text[offset:])
        assert key is not None
        shown = key.group().strip()[:MAX_SHOWN]
        if not shown:
            return None
        if shown == "*":
            return error_at(text, offset, "`[*]` is not a step.", "Write `.*` for each element.")
        if shown.startswith("-"):
            return error_at(
                text, offset, f"`{shown}` is not a place in a list.", "Places count from 0."
            )
        return error_at(
            text, offset, f"`{shown}` is a key without quotes.", f"Write [{quoted(shown)}]."
        )
    if re.search(r"(?<![\d.])\.\Z", text[max(0, offset - 2) : offset]):
        number = re.match(r"\d+", text[offset:], re.ASCII)
        if number:
            return error_at(
                text, offset, f"`.{number[0][:20]}` is not a step.", f"Write [{number[0][:20]}]."
            )
        if text[offset : offset + 1] in ('"', "'"):
            written = _operand_after(text, offset)
            return error_at(text, offset, f"`.{written}` is not a step.", f"Write [{written}].")
    return None


# ---------------------------------------------------------------------------------- brackets

_CLOSES = {")": "(", "]": "["}


def brackets(text: str) -> Iterator[tuple[int, str]]:
    """Brackets outside of texts and comments: their offsets and what they are."""
    for found in re.finditer(r"[()\[\]]", blank(text)):
        yield found.start(), found.group()


def _brackets(text: str, offset: int) -> KflError | None:
    """A bracket that closes nothing, or that nothing closes."""
    waiting: list[tuple[int, str]] = []
    for at, bracket in brackets(text):
        if bracket not in _CLOSES:
            waiting.append((at, bracket))
        elif waiting and waiting[-1][1] == _CLOSES[bracket]:
            waiting.pop()
        elif at <= offset:
            opened = f"the `{waiting[-1][1]}` before it closes otherwise" if waiting else ""
            ours = opened or "no bracket is open here"
            return error_at(
                text, at, f"`{bracket}` closes nothing: {ours}.", "Take it out, or open it before."
            )
        else:
            return None
    if waiting and offset >= len(text.rstrip()):
        at, bracket = waiting[-1]
        closing = {"(": ")", "[": "]"}[bracket]
        return error_at(
            text,
            at,
            f"`{bracket}` is not closed; the filter ends too early.",
            f"Write `{closing}` where it ends.",
        )
    return None


def _list_in_round_brackets(text: str, offset: int) -> KflError | None:
    found = re.search(r"\bin\s*\(([^()\n]*)\Z", text[max(0, offset - 200) : offset])
    if not found or text[offset : offset + 1] != ",":
        return None
    start = offset - len(found.group(1)) - 1
    items = text[start + 1 :].partition(")")[0][:MAX_SHOWN]
    return error_at(
        text, start, "A list stands in square brackets.", f"Write in [{items.strip()}]."
    )


_SLIPS: tuple[Slip, ...] = (
    _typographic,
    _invisible,
    _other_letters,
    _open_text,
    _bare_key,
    _sql_frame,
    _list_in_round_brackets,
    _sql,
    _infix_method,
    _capital_keyword,
    _bare_value,
    _sign,
    _braces,
    _brackets,
)
"""Asked in this order."""
