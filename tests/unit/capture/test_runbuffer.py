"""What a run tells of losses that last as long as it does."""

from dataclasses import replace

import pytest

import kfl
from recordings.schema import TIMESTAMP
from services.capture.assignments import ActiveRun, Assignment
from services.capture.frames.batch import Loss
from services.capture.runbuffer import RunBuffer


class Sent:
    """Takes what would go to the scheduler; `losses` are the rows of one table of it."""

    def __init__(self):
        self.losses = []

    def send(self, job, run, parts, final):
        for name, table in parts:
            assert name == "losses"
            fields = (table[name] for name in ("kind", "start_time", "end_time", "packets"))
            columns = [each.cast("int64") if each.type == TIMESTAMP else each for each in fields]
            self.losses += zip(*(column.to_pylist() for column in columns), strict=True)

    def rows(self):
        found, self.losses = self.losses, []
        return found


@pytest.fixture
def sent():
    return Sent()


@pytest.fixture
def buffer(sent):
    run = ActiveRun(Assignment("job", 1, "http", 100, 200, 0), kfl.compile("http"), 0)
    return RunBuffer(run, sent, "node-1")


def test_that_it_is_a_sample_is_known_of_all_the_time_of_a_run(buffer, sent):
    for _ in range(3):
        buffer.tell_sample("a tenth", 0.0)
    assert buffer.is_due(1.0)
    buffer.flush(1.0)
    assert sent.rows() == [("sampled", 100, 200, 0)]
    buffer.run.assignment = replace(buffer.run.assignment, stop_ns=300)
    buffer.tell_sample("a tenth", 1.0)
    buffer.flush(1.0)
    assert sent.rows() == [("sampled", 100, 300, 0)]
    buffer.flush(2.0, final=True)
    assert sent.rows() == []


def test_how_much_a_sample_left_out_is_told_as_one_sum_at_the_end(buffer, sent):
    buffer.tell_sample("a tenth", 0.0)
    for time in (150, 110, 180):
        buffer.sum_up(Loss("sampled", time, time, 2, 60))
        buffer.flush(1.0)
    assert sent.rows() == [("sampled", 100, 200, 0)]
    buffer.flush(2.0, final=True)
    assert sent.rows() == [("sampled", 110, 180, 6)]


def test_what_goes_on_all_the_time_is_told_when_it_begins_and_when_the_run_ends(buffer, sent):
    for time in (150, 160, 170):
        buffer.sum_up(Loss("redacted", time, time, 2))
        buffer.flush(1.0)
    assert sent.rows() == [("redacted", 150, 150, 2)]
    buffer.flush(2.0, final=True)
    assert sent.rows() == [("redacted", 160, 170, 4)]
