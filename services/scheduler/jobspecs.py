"""What people ask for when they create a job: defaults filled in, every field checked."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from enum import IntEnum
from typing import TypeVar

from recorder.v1 import jobs_pb2

import kfl
from kfl.macros import expand
from recordings import names
from services.runtime.errors import Violation
from services.scheduler import labels, timetable
from services.scheduler.jobs import OnFull, RunMissed, Spec

DEFAULT_KFL = "http or dns"
DEFAULT_ITERATIONS = 1
DEFAULT_DURATION_MINUTES = 240
DEFAULT_EXPIRATION_MINUTES = 2880
DEFAULT_BODY_LIMIT = 64 << 10

MOST_ITERATIONS = 3650
"""Ten years, day by day; whoever wants more wants 0, which is for ever."""

LONGEST_DURATION_MINUTES = 1440
"""Of each of several runs, a day: runs of a job do not overlap."""

LONGEST_SINGLE_MINUTES = 30 * 1440
"""Of the only run of a job."""

LARGEST_SIZE_LIMIT = 1 << 50
"""A pebibyte; a larger number is a mistake."""

SMALLEST_SIZE_LIMIT = 1 << 20
"""Octets of a job: a journal and the files that it becomes have to fit, and something in them."""

DEFAULT_PROBE_SECONDS = 5
LONGEST_PROBE_SECONDS = 60
"""A forecast of a minute's traffic; whoever wants more records."""

LONGEST_TEXT = 1024
"""Characters of a description or a reason: a paragraph."""

LONGEST_EXPIRATION_MINUTES = 10 * 365 * 24 * 60
"""Ten years; a larger number is a mistake, such as seconds for minutes."""

LARGEST_BODY_LIMIT = 2 << 20
"""Two bodies of it, in base64, fit into one batch of an agent."""

NO_MACROS: Mapping[str, str] = {}


def read_spec(
    message: jobs_pb2.JobSpec, macros: Mapping[str, str] = NO_MACROS
) -> Spec | list[Violation]:
    """Return what was asked for with its defaults, or all that is wrong with it."""
    wrong: list[Violation] = []

    def check(field: str, test: Callable[[], object]) -> None:
        try:
            test()
        except ValueError as error:
            wrong.append(Violation(f"spec.{field}", str(error)))

    def number(field: str, default: int, least: int, most: int, unit: str) -> int:
        value: int = getattr(message, field) if message.HasField(field) else default  # type: ignore[arg-type]
        check(field, lambda: check_within(value, least, most, unit))
        return value

    text = message.kfl if message.kfl.strip() else DEFAULT_KFL
    check("name", lambda: names.check(message.name))
    check("kfl", lambda: check_filter(text, macros))
    if message.start_time:
        check("start_time", lambda: timetable.parse_start(message.start_time))
    check("labels", lambda: labels.check(message.labels))
    check("description", lambda: check_text(message.description))
    if message.size_limit_bytes:
        check("size_limit_bytes", lambda: _size(message.size_limit_bytes))
    spec = Spec(
        name=message.name,
        kfl=text,
        start_time=message.start_time,
        daily_iterations=number(
            "daily_iterations", DEFAULT_ITERATIONS, 0, MOST_ITERATIONS, "days, where 0 is for ever"
        ),
        duration_minutes=number(
            "duration_minutes", DEFAULT_DURATION_MINUTES, 1, LONGEST_SINGLE_MINUTES, "minutes"
        ),
        expiration_minutes=number(
            "expiration_minutes",
            DEFAULT_EXPIRATION_MINUTES,
            1,
            LONGEST_EXPIRATION_MINUTES,
            "minutes",
        ),
        body_limit=number("body_limit", DEFAULT_BODY_LIMIT, 0, LARGEST_BODY_LIMIT, "octets"),
        imported=message.imported,
        run_missed=_choice("run_missed", message.run_missed, RunMissed, wrong),
        pinned=message.pinned,
        labels=dict(message.labels),
        description=message.description,
        size_limit=message.size_limit_bytes,
        on_full=_choice("on_full", message.on_full, OnFull, wrong),
    )
    is_daily = spec.daily_iterations != 1
    if is_daily and LONGEST_DURATION_MINUTES < spec.duration_minutes <= LONGEST_SINGLE_MINUTES:
        sentence = (
            f"{spec.duration_minutes} minutes are longer than a day, so daily runs would overlap: "
            f"at most {LONGEST_DURATION_MINUTES} minutes, or one iteration."
        )
        wrong.append(Violation("spec.duration_minutes", sentence))
    if spec.imported and spec.start_time:
        sentence = "An imported job begins when it is created; leave the start time empty."
        wrong.append(Violation("spec.start_time", sentence))
    if spec.imported and spec.daily_iterations != 1:
        sentence = "An imported job has one run; leave the number of days unset."
        wrong.append(Violation("spec.daily_iterations", sentence))
    if wrong:
        return wrong
    expanded = expand(text, macros)
    return spec if expanded == text else replace(spec, expanded_kfl=expanded)


def read_forecast(
    message: jobs_pb2.ForecastJobRequest, macros: Mapping[str, str] = NO_MACROS
) -> tuple[str, int, int, int] | list[Violation]:
    """Return statement, minutes, seconds and body limit of a forecast, or all that is wrong."""
    wrong: list[Violation] = []
    text = message.kfl if message.kfl.strip() else DEFAULT_KFL

    def number(field: str, default: int, least: int, most: int, unit: str) -> int:
        value: int = getattr(message, field) if message.HasField(field) else default  # type: ignore[arg-type]
        try:
            check_within(value, least, most, unit)
        except ValueError as error:
            wrong.append(Violation(field, str(error)))
        return value

    try:
        check_filter(text, macros)
    except ValueError as error:
        wrong.append(Violation("kfl", str(error)))
    minutes, seconds, body_limit = (
        number("duration_minutes", DEFAULT_DURATION_MINUTES, 1, LONGEST_SINGLE_MINUTES, "minutes"),
        number("probe_seconds", DEFAULT_PROBE_SECONDS, 1, LONGEST_PROBE_SECONDS, "seconds"),
        number("body_limit", DEFAULT_BODY_LIMIT, 0, LARGEST_BODY_LIMIT, "octets"),
    )
    return wrong or (expand(text, macros), minutes, seconds, body_limit)


def check_text(text: str) -> None:
    """Raise ValueError unless this is a text of a person: printable, and not too long."""
    if len(text) > LONGEST_TEXT:
        raise ValueError(f"It has {len(text)} characters; at most {LONGEST_TEXT} are taken.")
    if not text.replace("\n", " ").isprintable():
        raise ValueError("It has characters that cannot be printed; leave them out.")


def check_minutes(duration: int | None, expiration: int | None) -> list[Violation]:
    """Return what is wrong with the numbers of an extension; None is not asked for."""
    wrong = []
    limits = (
        ("duration_minutes", duration, LONGEST_SINGLE_MINUTES),
        ("expiration_minutes", expiration, LONGEST_EXPIRATION_MINUTES),
    )
    for field, value, most in limits:
        try:
            check_within(1 if value is None else value, 1, most, "minutes")
        except ValueError as error:
            wrong.append(Violation(field, str(error)))
    return wrong


def check_iterations(iterations: int | None) -> list[Violation]:
    """Return what is wrong with a number of days."""
    if iterations is None or 0 <= iterations <= MOST_ITERATIONS:
        return []
    sentence = f"{iterations} is out of range: 0 to {MOST_ITERATIONS} days, where 0 is for ever."
    return [Violation("daily_iterations", sentence)]


_Choice = TypeVar("_Choice", bound=IntEnum)


def _choice(field: str, value: int, kind: type[_Choice], wrong: list[Violation]) -> _Choice:
    """Return the member of that number; the first one when it is not set."""
    try:
        return kind(value or 1)
    except ValueError:
        known = ", ".join(f"{member} ({member.name.lower()})" for member in kind)
        wrong.append(Violation(f"spec.{field}", f"{value} is none of {known}."))
        return kind(1)


def _size(value: int) -> None:
    check_within(value, SMALLEST_SIZE_LIMIT, LARGEST_SIZE_LIMIT, "octets, or 0 for no limit")


def check_within(value: int, least: int, most: int, unit: str) -> None:
    """Raise ValueError with the range unless a number is in it."""
    if not least <= value <= most:
        raise ValueError(f"{value} is out of range: {least} to {most} {unit}.")


def check_filter(text: str, macros: Mapping[str, str]) -> None:
    """Raise ValueError with all that is wrong with a job's filter."""
    found = [diagnostic for diagnostic in kfl.check(text, macros) if diagnostic.is_error]
    if found:
        sentences = (
            f"line {d.line}, column {d.column}: {d.message} {d.suggestion}".strip() for d in found
        )
        raise ValueError(" ".join(sentences))
    if not kfl.compile(expand(text, macros)).needs_live:  # as agents will
        raise ValueError(
            "This asks only what is recorded already, because of record(); a job records live "
            "traffic. Leave record() out, or ask the query service."
        )
