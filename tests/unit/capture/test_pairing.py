"""The table of waiting requests, against a plain list that does the same slowly."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.capture import pairing
from services.capture.pairing import NO_REQUEST, new_waiting

STEPS = st.lists(
    st.tuples(
        st.sampled_from(["put", "put", "answer", "oldest"]), st.integers(0, 2), st.integers(0, 3)
    ),
    max_size=120,
)


@settings(max_examples=200)
@given(steps=STEPS, rows=st.sampled_from([1, 2, 8]))
def test_requests_leave_in_the_order_of_their_key(steps, rows):
    waiting = new_waiting(rows)
    model = []  # (number, stream, key), the oldest first
    for step, stream, key in steps:
        if step == "put":
            if pairing.is_full(waiting):
                # The oldest number blocks the ring, even when younger ones have gone.
                assert pairing.oldest_request(waiting) == model[0][0]
                pairing.drop(waiting, model.pop(0)[0])
            model.append((pairing.put(waiting, stream, key, 7), stream, key))
        elif step == "answer":
            same = [number for number, *of in model if of == [stream, key]]
            found = pairing.find(waiting, stream, key)
            assert found == (same[0] if same else NO_REQUEST)
            if same:
                following = pairing.find_next(waiting, found)
                assert following == (same[1] if len(same) > 1 else NO_REQUEST)
                pairing.drop(waiting, found)
                assert not pairing.is_here(waiting, found)
                model = [row for row in model if row[0] != found]
        else:
            assert pairing.oldest_request(waiting) == (model[0][0] if model else NO_REQUEST)
    assert all(pairing.is_here(waiting, number) for number, *_ in model)


def test_answers_in_order_survive_a_request_that_was_thrown_out():
    """A protocol that answers in order takes the running number in its direction as the key."""
    waiting = new_waiting(2)
    for exchange in range(3):
        if pairing.is_full(waiting):
            pairing.drop(waiting, pairing.oldest_request(waiting))
        pairing.put(waiting, 1, exchange, 100 + exchange)
    times = []
    for exchange in range(3):
        number = pairing.find(waiting, 1, exchange)
        if number != NO_REQUEST:
            times.append((exchange, int(waiting.requests[int(number) & 1].time)))
            pairing.drop(waiting, number)
    assert times == [(1, 101), (2, 102)]


def test_a_number_kept_for_too_long_leads_nowhere():
    waiting = new_waiting(1)
    first = pairing.put(waiting, 1, 1, 0)
    pairing.drop(waiting, first)
    second = pairing.put(waiting, 1, 1, 0)
    assert not pairing.is_here(waiting, first)
    assert pairing.is_here(waiting, second)
    assert not pairing.is_here(waiting, NO_REQUEST)


def test_a_flood_of_one_key_is_not_searched_to_its_end():
    waiting = new_waiting(1024)
    numbers = [pairing.put(waiting, 1, 1, 0) for _ in range(1000)]
    assert pairing.find(waiting, 1, 1) == numbers[0]
    assert pairing.find_next(waiting, numbers[0]) == numbers[1]


@pytest.mark.parametrize("rows", [0, 3, -4])
def test_the_size_is_a_power_of_two(rows):
    with pytest.raises(ValueError, match="power of two"):
        new_waiting(rows)


def test_buckets_are_spread():
    waiting = new_waiting(1 << 12)
    used = {
        int(pairing.bucket_of(waiting, np.int64(s), np.int64(k)))
        for s in range(64)
        for k in range(64)
    }
    assert len(used) > 2000
