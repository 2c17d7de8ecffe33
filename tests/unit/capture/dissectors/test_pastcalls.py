"""Calls that are remembered: the last ones, of the streams that are asked for."""

import numpy as np

from services.capture.dissectors.pastcalls import PastCalls

ROW = np.dtype([("stream", np.int64), ("text", "S4")])


def rows(*streams):
    return np.array([(stream, b"%d" % number) for number, stream in enumerate(streams)], ROW)


def test_calls_of_a_stream_come_in_their_order_with_their_numbers():
    past = PastCalls(ROW, 8)
    past.add(rows(1, 2, 1), np.array([0, 0, 1], np.int32))
    past.add(rows(1, 3), np.array([2, 0], np.int32))
    found, indexes = past.of(np.array([1, 7]))
    assert (found["text"].tolist(), indexes.tolist()) == ([b"0", b"2", b"0"], [0, 1, 2])
    assert len(past.of(np.array([9]))[0]) == 0


def test_before_the_first_call_there_is_none():
    found, indexes = PastCalls(ROW, 8).of(np.array([1]))
    assert (len(found), len(indexes)) == (0, 0)


def test_only_the_last_ones_are_remembered():
    past = PastCalls(ROW, 4)
    for number in range(7):
        past.add(rows(number), np.array([number], np.int32))
    assert past.of(np.arange(7))[1].tolist() == [3, 4, 5, 6]
    past.add(rows(*[5] * 9), np.arange(9, dtype=np.int32))
    assert past.of(np.array([5]))[1].tolist() == [5, 6, 7, 8]
