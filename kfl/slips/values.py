"""Values and keys without the quotes that they need, and numbers as people say them."""

from __future__ import annotations

import re

from kfl.errors import KflError
from kfl.slips.written import MAX_SHOWN, error_at, operand_after, quoted, selector_before

_UNITS = {"ms", "us", "ns", "s", "m", "h", "d", "sec", "min", "secs", "mins"}
_SHORT_UNITS = {"sec": "s", "secs": "s", "min": "m", "mins": "m"}
_OCTETS = {"b": 1, "k": 1024, "kb": 1024, "kib": 1024, "mb": 1 << 20, "mib": 1 << 20, "gb": 1 << 30}

_RUN_BEFORE = re.compile(r"[^\s()\[\],\"'=!<>]*\Z")
_RUN_AFTER = re.compile(r"[^\s()\[\],\"'=!<>]*")
_CLASS = re.compile(r"([1-5])(?:xx|XX|\*\*|\*)\Z")
_AMOUNT = re.compile(r"(?:\d+(?:\.\d+)?[a-zµ]+)+\Z", re.IGNORECASE)
_COMPARISON = re.compile(r"(==|!=|<=|>=|<|>)\s*\Z")


def bare_value(text: str, offset: int) -> KflError | None:
    """`5xx`, `5ms`, `10.0.0.1`, `/api/cart`: the run of characters in which reading stopped."""
    before = _RUN_BEFORE.search(text[max(0, offset - 300) : offset])
    after = _RUN_AFTER.match(text, offset)
    assert before is not None
    assert after is not None
    start = offset - len(before.group())
    run = before.group() + after.group()
    if not run:
        return None
    found = _with_letters(text, start, run)
    if found is not None:
        return found
    is_compared = _COMPARISON.search(text[max(0, start - 20) : start])
    is_value = is_compared or text[:start].rstrip()[-1:] in ("[", ",")
    looks = run[0] in "/" or re.match(r"\d+[.:-]|[0-9a-fA-F]*::", run) or not run[0].isalpha()
    if not is_value or run.isdigit() or not (looks or re.search(r"[/:.@-]", run)):
        return None
    return _without_quotes(text, start, run)


def _with_letters(text: str, start: int, run: str) -> KflError | None:
    """`5xx`, `5ms`, `500and`: digits and letters in one."""
    comparison = _COMPARISON.search(text[max(0, start - 20) : start])
    shown = run[:MAX_SHOWN]
    status = _CLASS.match(run)
    if status and comparison:
        left = selector_before(text, start - len(comparison.group()))
        ours = _status_class(left, comparison.group(1), int(status.group(1)) * 100)
        return error_at(text, start, f"`{shown}` is not a number.", f"Write {ours}.")
    joined = re.match(r"(\d+)(and|or|in)\b|(\d+)(and|or)(?=[a-z])", run, re.ASCII)
    if joined:
        return error_at(
            text,
            start + len(joined[1] or joined[3]),
            f"`{joined[2] or joined[4]}` is not set apart from the number.",
            "Put a space before and after it.",
        )
    if _AMOUNT.match(run):
        return error_at(text, start, f"`{shown}` is not a number.", _amount(shown))
    return None


def _without_quotes(text: str, start: int, run: str) -> KflError:
    shown = run[:MAX_SHOWN]
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


def bare_key(text: str, offset: int) -> KflError | None:
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
            written = operand_after(text, offset)
            return error_at(text, offset, f"`.{written}` is not a step.", f"Write [{written}].")
    return None


def list_in_round_brackets(text: str, offset: int) -> KflError | None:
    """`x in (a, b)`."""
    found = re.search(r"\bin\s*\(([^()\n]*)\Z", text[max(0, offset - 200) : offset])
    if not found or text[offset : offset + 1] != ",":
        return None
    start = offset - len(found.group(1)) - 1
    items = text[start + 1 :].partition(")")[0][:MAX_SHOWN]
    return error_at(
        text, start, "A list stands in square brackets.", f"Write in [{items.strip()}]."
    )
