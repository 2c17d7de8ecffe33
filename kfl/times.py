"""Times and durations of a filter, as milliseconds. `resolve` calls these once, at compile time."""

from __future__ import annotations

import calendar
import re
from datetime import UTC, datetime, timedelta
from fractions import Fraction

_UNIT_MS = {
    "seconds": 1_000,
    "minutes": 60_000,
    "hours": 3_600_000,
    "days": 86_400_000,
    "weeks": 604_800_000,
}

OFFSETS = (*_UNIT_MS, "months", "years")
"""Functions that give the time so far from now: seconds(-5) is five seconds ago."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_DURATION_MS = {
    "d": Fraction(86_400_000),
    "h": Fraction(3_600_000),
    "m": Fraction(60_000),
    "s": Fraction(1_000),
    "ms": Fraction(1),
    "us": Fraction(1, 1_000),
    "µs": Fraction(1, 1_000),
    "μs": Fraction(1, 1_000),
    "ns": Fraction(1, 1_000_000),
}

_DURATION_PART = re.compile(r"(\d{1,15}(?:\.\d{1,15})?)(ms|us|µs|μs|ns|d|h|m|s)", re.ASCII)

_RFC3339 = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[Tt ](\d\d):(\d\d):(\d\d)(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)", re.ASCII
)

_KFL1 = re.compile(
    r"(\d{1,2})/(\d{1,2})/(\d{4}), (\d{1,2}):(\d\d):(\d\d)(\.\d{1,3})? (AM|PM)", re.ASCII
)


def from_now(function: str, count: int | float, now_ms: int) -> int | float:
    """The time `count` seconds, minutes … after now_ms. Raises ValueError when there is none."""
    if function in _UNIT_MS:
        moved = Fraction(count) * _UNIT_MS[function] + now_ms
        _as_datetime(moved)
        return _plain(moved)
    if int(count) != count:
        raise ValueError(f"{function}() takes a whole number.")
    months = int(count) * (12 if function == "years" else 1)
    start = _as_datetime(Fraction(now_ms))
    year, month = divmod(start.year * 12 + start.month - 1 + months, 12)
    if not 1 <= year <= 9999:
        raise ValueError("There is no such time: years go from 1 to 9999.")
    day = min(start.day, calendar.monthrange(year, month + 1)[1])
    return _milliseconds(start.replace(year=year, month=month + 1, day=day))


def parse_timestamp(text: str) -> int | float:
    """RFC 3339 to milliseconds. Raises ValueError with a sentence."""
    found = _RFC3339.fullmatch(text)
    if not found:
        raise ValueError(
            f"`{text[:40]}` is not a time in the form 2026-03-14T22:00:00Z (RFC 3339)."
        )
    *parts, fraction, zone = found.groups()
    try:
        year, month, day, hour, minute, second = map(int, parts)
        moment = datetime(year, month, day, hour, minute, second, tzinfo=UTC)
        if zone not in "Zz":
            hours, minutes = int(zone[1:3]), int(zone[4:6])
            if hours > 23 or minutes > 59:
                raise ValueError("zone")
            shift = timedelta(hours=hours, minutes=minutes)
            moment = moment - shift if zone[0] == "+" else moment + shift
    except (ValueError, OverflowError):
        raise ValueError(f"`{text[:40]}` names a time that does not exist.") from None
    return _plain(_milliseconds(moment) + Fraction(f"0{fraction or ''}") * 1000)


def parse_datetime(text: str) -> int | float:
    """KFL1's form, in UTC, to milliseconds. Raises ValueError with a sentence."""
    found = _KFL1.fullmatch(text)
    if not found:
        raise ValueError(
            f'`{text[:40]}` is not a time in the form "10/19/2021, 6:29:02 PM"'
            ' or "10/19/2021, 6:29:02.801 PM".'
        )
    month, day, year, hour, minute, second, fraction, half = found.groups()
    if not 1 <= int(hour) <= 12:
        raise ValueError(f"`{text[:40]}` has an hour that is not from 1 to 12.")
    hours = int(hour) % 12 + (12 if half == "PM" else 0)
    try:
        moment = datetime(
            int(year), int(month), int(day), hours, int(minute), int(second), tzinfo=UTC
        )
    except ValueError:
        raise ValueError(f"`{text[:40]}` names a time that does not exist.") from None
    return _plain(_milliseconds(moment) + Fraction(f"0{fraction or ''}") * 1000)


def parse_duration(text: str) -> int | float:
    """`1h30m`, `1.5s`, `-5m` to milliseconds. Raises ValueError with a sentence."""
    sign, rest = (-1, text[1:]) if text.startswith("-") else (1, text)
    total = Fraction(0)
    position = 0
    while position < len(rest):
        part = _DURATION_PART.match(rest, position)
        if not part:
            break
        total += Fraction(part.group(1)) * _DURATION_MS[part.group(2)]
        position = part.end()
    if position < len(rest) or not rest:
        raise ValueError(
            f"`{text[:40]}` is not a duration such as 5m, 1h30m or 250ms (units: d h m s ms us ns)."
        )
    return _plain(sign * total)


def _milliseconds(moment: datetime) -> int:
    return (moment - _EPOCH) // timedelta(milliseconds=1)


def _as_datetime(milliseconds: Fraction) -> datetime:
    try:
        return _EPOCH + timedelta(milliseconds=int(milliseconds))
    except OverflowError:
        raise ValueError("There is no such time: years go from 1 to 9999.") from None


def _plain(value: Fraction | int) -> int | float:
    exact = Fraction(value)
    return int(exact) if exact.denominator == 1 else float(exact)
