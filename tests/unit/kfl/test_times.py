from datetime import UTC, datetime

import pytest

from kfl import times

NOON = int(datetime(2024, 3, 31, 12, tzinfo=UTC).timestamp() * 1000)


def at(*parts):
    return int(datetime(*parts, tzinfo=UTC).timestamp() * 1000)


@pytest.mark.parametrize(
    ("function", "count", "wanted"),
    [
        ("seconds", -5, NOON - 5_000),
        ("seconds", 0.5, NOON + 500),
        ("minutes", 2, NOON + 120_000),
        ("hours", -1, NOON - 3_600_000),
        ("days", 1, at(2024, 4, 1, 12)),
        ("weeks", -1, at(2024, 3, 24, 12)),
        ("months", -1, at(2024, 2, 29, 12)),
        ("months", 1, at(2024, 4, 30, 12)),
        ("months", 10, at(2025, 1, 31, 12)),
        ("years", -1, at(2023, 3, 31, 12)),
    ],
)
def test_times_from_now(function, count, wanted):
    assert times.from_now(function, count, NOON) == wanted


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("2026-03-14T22:00:00Z", at(2026, 3, 14, 22)),
        ("2026-03-14t22:00:00z", at(2026, 3, 14, 22)),
        ("2026-03-14 22:00:00.5+02:00", at(2026, 3, 14, 20) + 500),
        ("1969-12-31T23:59:59.999-00:00", -1),
        ("2026-03-14T22:00:00.000001Z", at(2026, 3, 14, 22) + 0.001),
    ],
)
def test_rfc_3339(text, wanted):
    assert times.parse_timestamp(text) == wanted


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("10/19/2021, 6:29:02 PM", at(2021, 10, 19, 18, 29, 2)),
        ("10/19/2021, 6:29:02.801 PM", at(2021, 10, 19, 18, 29, 2) + 801),
        ("1/2/2021, 12:00:00 AM", at(2021, 1, 2)),
        ("1/2/2021, 12:00:00 PM", at(2021, 1, 2, 12)),
    ],
)
def test_times_of_kfl1(text, wanted):
    assert times.parse_datetime(text) == wanted


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("5m", 300_000),
        ("1h30m", 5_400_000),
        ("1.5s", 1500),
        ("-2ms", -2),
        ("250us", 0.25),
        ("1d", 86_400_000),
    ],
)
def test_durations(text, wanted):
    assert times.parse_duration(text) == wanted


@pytest.mark.parametrize(
    ("read", "text"),
    [
        (times.parse_timestamp, "2026-13-01T00:00:00Z"),
        (times.parse_timestamp, "2026-01-01"),
        (times.parse_timestamp, "0001-01-01T00:00:00+23:59"),
        (times.parse_timestamp, "2026-01-01T00:00:00+99:00"),
        (times.parse_datetime, "13/1/2021, 1:00:00 PM"),
        (times.parse_datetime, "1/1/2021, 13:00:00 PM"),
        (times.parse_duration, ""),
        (times.parse_duration, "5"),
        (times.parse_duration, "5m "),
        (times.parse_duration, "five"),
    ],
)
def test_other_texts_are_refused(read, text):
    with pytest.raises(ValueError, match=r"\."):
        read(text)


def test_times_end_with_the_calendar():
    for function in times.OFFSETS:
        with pytest.raises(ValueError, match="no such time"):
            times.from_now(function, 10**15, NOON)
