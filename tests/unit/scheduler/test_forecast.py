"""What a forecast says to people."""

from dataclasses import replace
from datetime import timedelta

from services.scheduler.forecast import Forecast, past_rate
from services.scheduler.ingest import Probed
from services.scheduler.jobs import Job, JobState, Run
from tests.unit.scheduler.conftest import SPEC, START

ONE = Probed(1, 100, 10, 1000, 1 << 20)
FORECAST = Forecast(agents=2, answers=[ONE, ONE], seconds=5, minutes=240, free=8 << 30, past=0.0)


def test_a_run_that_fits():
    assert FORECAST.fits
    assert FORECAST.summary == (
        "2 of 2 agents saw 40.0 entries in 4.0 streams a second, 409.6 KiB/s: 240 min need about "
        "5.6 GiB: fits into the 8 GiB that are free."
    )


def test_a_run_that_fills_what_is_free():
    full = replace(FORECAST, free=1 << 30)
    assert not full.fits
    assert full.summary.endswith("fills the 1 GiB that are free in 43 min.")
    assert replace(FORECAST, free=0).full_after == 0


def test_where_nothing_is_known_it_says_so():
    assert "No agent is connected" in replace(FORECAST, agents=0, answers=[]).summary
    assert "None of the 2 agents has answered" in replace(FORECAST, answers=[]).summary
    nothing = replace(FORECAST, answers=[Probed(1, 0, 0, 0, 0)])
    assert nothing.summary == "Nothing matched in 5 s on 1 of 2 agents."
    assert "would need 219.7 KiB" in replace(nothing, past=15.625).summary


def test_earlier_runs_of_the_same_statement_count():
    run = Run(
        number=1,
        state=JobState.COMPLETED,
        reason="",
        start_time=START,
        end_time=START + timedelta(minutes=1),
        bytes=6000,
    )
    job = Job(
        spec=SPEC,
        state=JobState.COMPLETED,
        reason="",
        create_time=START,
        change_time=START,
        first_start=START,
        runs=(run, replace(run, number=2, bytes=0)),
    )
    assert past_rate([job], "http or dns") == 100.0
    assert past_rate([job], "dns") == 0.0
