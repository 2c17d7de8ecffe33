"""When runs are: over months, leap days and midnight, and after the scheduler was away."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.scheduler import timetable
from services.scheduler.jobs import Job, JobState, Spec
from services.scheduler.timetable import Window


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def job(first_start: datetime, iterations=1, duration=240, planned=0, state=JobState.SCHEDULED):
    spec = Spec(
        name="nightly",
        kfl="http",
        start_time=f"{first_start:%H:%M}",
        daily_iterations=iterations,
        duration_minutes=duration,
        expiration_minutes=60,
        body_limit=0,
        imported=False,
    )
    return Job(
        spec=spec,
        state=state,
        reason="",
        create_time=first_start,
        change_time=first_start,
        first_start=first_start,
        planned=planned,
    )


@pytest.mark.parametrize(
    ("start", "now", "expected"),
    [
        ("22:00", "2026-03-01T12:00:00", "2026-03-01T22:00"),
        ("08:00", "2026-03-01T12:00:00", "2026-03-02T08:00"),
        ("12:00", "2026-03-01T12:00:00", "2026-03-01T12:00"),
        ("12:00", "2026-03-01T12:00:59.999999", "2026-03-01T12:00"),
        ("12:00", "2026-03-01T12:01:00", "2026-03-02T12:00"),
        ("00:00", "2026-12-31T23:59:59", "2027-01-01T00:00"),
        ("23:59", "2026-12-31T23:59:30", "2026-12-31T23:59"),
        ("01:00", "2028-02-28T02:00:00", "2028-02-29T01:00"),
        ("01:00", "2027-02-28T02:00:00", "2027-03-01T01:00"),
    ],
)
def test_the_first_run_begins_at_the_next_time_of_that_name(start, now, expected):
    assert timetable.first_start(start, at(now)) == at(expected)


def test_a_start_time_is_utc_wherever_now_is_told():
    now = datetime(2026, 3, 1, 23, 30, tzinfo=timezone(timedelta(hours=9)))  # 14:30 in UTC
    assert timetable.first_start("15:00", now) == at("2026-03-01T15:00")


def test_no_start_time_begins_in_a_moment():
    now = at("2026-03-01T12:00:00.25")
    assert timetable.first_start("", now) == now + timetable.NOW_LEAD


@pytest.mark.parametrize(
    "text",
    [
        "24:00", "12:60", "9:00", "09:0", "0900", "ab:cd", "12:00Z", " 12:00", "-1:00", "+1:00",
        "12-00", "12:00:00", "1e:00", "12:\n0", "\u0661\u0662:00",
    ],
)  # fmt: skip
def test_another_start_time_is_refused_with_a_sentence(text):
    with pytest.raises(ValueError, match="write HH:MM in UTC"):
        timetable.parse_start(text)


def test_runs_are_a_day_apart_through_a_leap_day_and_the_end_of_a_month():
    nightly = job(at("2028-02-28T23:00"), iterations=3)
    assert list(timetable.windows(nightly)) == [
        Window(1, at("2028-02-28T23:00"), at("2028-02-29T03:00")),
        Window(2, at("2028-02-29T23:00"), at("2028-03-01T03:00")),
        Window(3, at("2028-03-01T23:00"), at("2028-03-02T03:00")),
    ]


def test_runs_for_ever_have_the_same_time_of_day_after_years():
    for_ever = job(at("2026-01-01T06:30"), iterations=0)
    assert timetable.window(for_ever, 366 + 365) == Window(
        731, at("2028-01-01T06:30"), at("2028-01-01T10:30")
    )


def test_the_calendar_ends_some_day():
    assert timetable.window(job(at("2026-01-01T06:30"), iterations=0), 10**7) is None


def test_five_next_starts():
    nightly = job(at("2027-02-26T22:00"), iterations=0)
    assert timetable.next_starts(nightly, at("2027-02-26T12:00")) == [
        at(f"{day}T22:00")
        for day in ("2027-02-26", "2027-02-27", "2027-02-28", "2027-03-01", "2027-03-02")
    ]


def test_next_starts_leave_out_what_has_begun_and_what_is_not_planned():
    three = job(at("2026-03-01T22:00"), iterations=3, planned=1)
    assert timetable.next_starts(three, at("2026-03-01T22:30")) == [
        at("2026-03-02T22:00"),
        at("2026-03-03T22:00"),
    ]
    assert timetable.next_starts(three, at("2026-03-04T00:00")) == []


def test_a_job_that_is_over_has_no_next_start():
    stopped = job(at("2026-03-01T22:00"), iterations=0, state=JobState.STOPPED)
    assert timetable.next_starts(stopped, at("2026-03-01T12:00")) == []
    assert timetable.due(stopped, at("2026-03-01T23:00")).begin is None


def test_nothing_is_due_before_the_first_start():
    one = job(at("2026-03-01T22:00"))
    due = timetable.due(one, at("2026-03-01T21:59:59"))
    assert (list(due.missed), due.begin) == ([], None)
    assert due.upcoming == Window(1, at("2026-03-01T22:00"), at("2026-03-02T02:00"))


@pytest.mark.parametrize("now", ["2026-03-01T22:00", "2026-03-01T23:30", "2026-03-02T01:59:59"])
def test_a_run_begins_late_while_its_window_is_open(now):
    due = timetable.due(job(at("2026-03-01T22:00")), at(now))
    assert list(due.missed) == []
    assert due.begin == Window(1, at("2026-03-01T22:00"), at("2026-03-02T02:00"))


def test_a_run_whose_window_has_passed_was_missed():
    due = timetable.due(job(at("2026-03-01T22:00")), at("2026-03-02T02:00"))
    assert (list(due.missed), due.begin, due.upcoming) == ([1], None, None)


def test_after_days_away_old_runs_were_missed_and_the_open_one_begins():
    ten = job(at("2026-03-01T22:00"), iterations=10, planned=2)
    due = timetable.due(ten, at("2026-03-06T23:00"))
    assert list(due.missed) == [3, 4, 5]
    assert due.begin == Window(6, at("2026-03-06T22:00"), at("2026-03-07T02:00"))
    assert due.upcoming.number == 7


def test_after_the_last_window_all_that_is_left_was_missed():
    ten = job(at("2026-03-01T22:00"), iterations=10, planned=2)
    due = timetable.due(ten, at("2027-01-01T00:00"))
    assert (list(due.missed), due.begin, due.upcoming) == (list(range(3, 11)), None, None)


def test_runs_of_a_whole_day_follow_each_other_without_a_gap():
    whole = job(at("2026-03-01T00:00"), iterations=3, duration=1440, planned=1)
    assert timetable.due(whole, at("2026-03-01T23:59:59")).begin is None
    due = timetable.due(whole, at("2026-03-02T00:00"))
    assert (list(due.missed), due.begin.number) == ([], 2)


def test_a_clock_that_was_set_back_begins_nothing_twice():
    for_ever = job(at("2026-03-01T22:00"), iterations=0, planned=5)
    due = timetable.due(for_ever, at("2026-03-02T22:30"))
    assert (list(due.missed), due.begin, due.upcoming.number) == ([], None, 6)


FIRST = at("2027-12-30T23:30")


@given(
    iterations=st.integers(0, 40),
    duration=st.integers(1, 1440),
    planned=st.integers(0, 45),
    minutes=st.integers(-2000, 60 * 24 * 60),
)
def test_due_says_the_same_as_looking_at_every_window(iterations, duration, planned, minutes):
    planned = min(planned, iterations) if iterations else planned
    now = FIRST + timedelta(minutes=minutes)
    one = job(FIRST, iterations, duration, planned)
    last = iterations or 120
    later = [timetable.window(one, n) for n in range(planned + 1, last + 1)]
    due = timetable.due(one, now)
    assert list(due.missed) == [w.number for w in later if w.end <= now]
    assert due.begin == next((w for w in later if w.start <= now < w.end), None)
    assert due.upcoming == next((w for w in later if w.start > now), None)
