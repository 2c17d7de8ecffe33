import threading
from datetime import UTC, datetime, timedelta

import pytest

from services.runtime.clock import MovedClock, SystemClock

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)


def test_system_clock_is_aware_and_monotonic():
    clock = SystemClock()
    assert clock.now().utcoffset() == timedelta()
    first = clock.monotonic()
    assert clock.monotonic() >= first


def test_system_clock_waits_for_the_event_or_the_time():
    clock = SystemClock()
    event = threading.Event()
    assert clock.wait(event, clock.now() + timedelta(milliseconds=1)) is False
    assert clock.wait(event, clock.now() - timedelta(hours=1)) is False
    event.set()
    assert clock.wait(event, clock.now() + timedelta(hours=1)) is True
    assert clock.wait(event, None) is True


def test_moved_clock_stands_until_it_is_moved():
    clock = MovedClock(NOON)
    assert clock.now() == clock.now() == NOON
    assert clock.move(timedelta(minutes=5)) == NOON + timedelta(minutes=5)
    assert clock.monotonic() == 300
    with pytest.raises(ValueError, match="forward"):
        clock.move(timedelta(seconds=-1))
    with pytest.raises(ValueError, match="aware"):
        MovedClock(datetime(2026, 1, 1))


@pytest.mark.parametrize("by_event", [True, False])
def test_a_move_and_an_event_wake_a_waiter(by_event):
    clock = MovedClock(NOON)
    event = threading.Event()
    answers = []
    waiter = threading.Thread(
        target=lambda: answers.append(clock.wait(event, NOON + timedelta(hours=1)))
    )
    waiter.start()
    clock.move(timedelta(minutes=59))
    waiter.join(0.05)
    assert waiter.is_alive()
    if by_event:
        event.set()
    else:
        clock.move(timedelta(minutes=1))
    waiter.join(10)
    assert answers == [by_event]
