"""The table of five-tuples: what is in it is found, whatever came and went around it, and of a full
one the right flow goes.
"""

import numpy as np
import pytest

from services.capture import flows as table
from services.capture.flows import (
    EMPTY_SLOT,
    NO_FLOW,
    ROWS_FREE,
    ROWS_USED,
    TCP_IDLE,
    find_or_add_flow,
    first_to_go,
    new_flows,
    new_keys,
    next_idle,
    remove_flow,
)
from services.capture.timewheel import SECOND

TCP, UDP = 6, 17
START = 1_700_000_000 * SECOND


class Table:
    """Flows by a number of their own, and a dictionary that says what should be in the table."""

    def __init__(self, most):
        self.flows = new_flows(most)
        self.key = new_keys(1)[0]
        self.rows = {}

    def find(self, name, now=START, protocol=TCP):
        lower, higher = (np.array([0, at, 80], np.uint64) for at in (0, name))
        table.set_key(self.key, tuple(lower), tuple(higher), protocol, self.flows.seed[0])
        number = find_or_add_flow(self.flows, self.key, now)
        if number == NO_FLOW:
            return None
        assert self.rows.setdefault(name, number) == number
        self.flows.rows[number].last_timestamp = now
        return self.flows.rows[number]

    def establish(self, name, now=START):
        flow = self.find(name, now)
        flow.packets[:] = 1
        flow.stream = 1
        return flow

    def remove(self, name):
        remove_flow(self.flows, self.rows.pop(name))

    def end(self, number):
        (name,) = (name for name, row in self.rows.items() if row == number)
        self.remove(name)
        return name

    def idle(self, now):
        """Remove and return all that are idle, in the order in which the table has them."""
        found = []
        while (number := next_idle(self.flows, now)) != NO_FLOW:
            found.append(self.end(number))
        return found

    def check(self):
        assert self.flows.counts[ROWS_USED] - self.flows.counts[ROWS_FREE] == len(self.rows)
        assert (self.flows.slots != EMPTY_SLOT).sum() == len(self.rows)
        assert self.flows.rows["used"].sum() == len(self.rows)
        queued = []
        for first in self.flows.wheel.first:
            while first != NO_FLOW:
                queued.append(first)
                first = self.flows.rows["next"][first]
        assert sorted(queued) == sorted(self.rows.values())


def test_a_flow_is_found_after_others_around_it_were_removed():
    random = np.random.default_rng(1)
    known = Table(256)
    for turn in range(20_000):
        name = int(random.integers(1, 400))
        if name not in known.rows and len(known.rows) == 256:
            name = next(iter(known.rows))
        if name in known.rows and random.random() < 0.5:
            known.remove(name)
        else:
            known.find(name, START + turn * SECOND // 100)
    known.check()


def test_a_full_table_has_no_room():
    known = Table(4)
    assert all(known.find(name) is not None for name in range(1, 5))
    assert known.find(5) is None
    known.check()


def test_flows_are_idle_in_the_order_of_their_time_and_not_before():
    known = Table(64)
    for name in range(1, 11):
        known.establish(name, START + name * SECOND)
    assert known.idle(START + TCP_IDLE) == []
    known.establish(3, START + TCP_IDLE)
    assert known.idle(START + TCP_IDLE + 6 * SECOND) == [1, 2, 4, 5]
    assert known.idle(START + TCP_IDLE + 60 * SECOND) == [6, 7, 8, 9, 10]
    known.check()
    assert known.idle(START + 3 * TCP_IDLE) == [3]
    known.check()


@pytest.mark.parametrize("seconds", [5 * TCP_IDLE // SECOND, 10_000_000, 3_000_000_000])
def test_time_may_leap(seconds):
    known = Table(64)
    for name in range(1, 11):
        known.establish(name, START + name * SECOND)
    assert sorted(known.idle(START + seconds * SECOND)) == list(range(1, 11))
    known.check()


def test_what_a_clock_that_was_set_back_has_left_in_the_future_goes():
    known = Table(64)
    known.establish(1, START)
    known.find(2, START, protocol=UDP)
    known.idle(START - 1000 * SECOND)
    assert known.idle(START - 998 * SECOND) == [2]  # 1 is in the future by less than its limit
    for later in range(0, 2000, 100):
        known.establish(3, START + (later - 1000) * SECOND)
        assert known.idle(START + (later - 1000) * SECOND) == []
    known.check()
    known.idle(START - 3000 * SECOND)
    assert known.idle(START - 2998 * SECOND) == [1, 3]


@pytest.mark.parametrize("seed", range(5))
def test_what_is_idle_is_what_a_walk_over_all_flows_would_find(seed):
    random = np.random.default_rng(seed)
    known, last = Table(512), {}
    now = START
    for _ in range(60):
        now += int(random.integers(1, 100)) * SECOND
        for name in random.integers(1, 500, 20).tolist():
            known.establish(name, now)
            last[name] = now
        gone = known.idle(now)
        over = {name for name, time in last.items() if now - time > TCP_IDLE}
        # A wheel turns by whole seconds.
        barely = {name for name in over if now - last[name] <= TCP_IDLE + SECOND}
        assert over - barely <= set(gone) <= over
        for name in gone:
            del last[name]
        known.check()


def test_of_a_full_table_the_one_goes_that_was_quiet_longest():
    known = Table(8)
    for name in range(1, 9):
        known.establish(name, START + name * SECOND)
    known.establish(1, START + 20 * SECOND)
    known.establish(2, START + 19 * SECOND)
    gone = [known.end(first_to_go(known.flows)) for _ in range(8)]
    assert gone == [3, 4, 5, 6, 7, 8, 2, 1]


def test_a_flood_of_openings_does_not_drive_out_what_is_established():
    known = Table(64)
    for name in range(1, 33):
        known.establish(name, START)
    for name in range(100, 1000):
        if known.find(name, START + name * SECOND // 10) is None:
            assert known.end(first_to_go(known.flows)) >= 100
            known.find(name, START + name * SECOND // 10)
    assert set(range(1, 33)) <= set(known.rows)
    known.check()


def test_a_closed_flow_goes_first():
    known = Table(4)
    for name in range(1, 5):
        known.establish(name, START)
    known.find(3).closed = 1
    table.settle(known.flows, known.rows[3])
    assert known.end(first_to_go(known.flows)) == 3
