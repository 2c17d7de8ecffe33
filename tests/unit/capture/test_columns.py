"""Columns: what Arrow holds is what lay at the spans."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.capture import columns
from services.capture.columns import NO_VALUE, new_spans


def lay_out(values):
    """Return (octets, spans) of the values, None for one that is not there, in mixed order."""
    octets = np.frombuffer(bytearray(b"?" + b"".join(v or b"" for v in values)), np.uint8)
    spans = new_spans(len(values))
    at = 1
    for row, value in enumerate(values):
        spans[row] = (at, NO_VALUE if value is None else len(value))
        at += len(value or b"")
    return octets, spans


@settings(deadline=None)  # the first call compiles
@given(st.lists(st.none() | st.binary(max_size=12), max_size=20))
def test_binary_columns_hold_the_values(values):
    column = columns.binary_column(*lay_out(values))
    column.validate(full=True)
    assert column.to_pylist() == values


@settings(deadline=None)  # the first call compiles
@given(st.lists(st.none() | st.binary(max_size=12) | st.text(max_size=6).map(str.encode)))
def test_text_is_utf8_else_latin1(values):
    def read(value):
        try:
            return value.decode()
        except UnicodeDecodeError:
            return value.decode("latin-1")

    octets, spans = lay_out(values)
    column = columns.text_column(octets, spans)
    column.validate(full=True)
    expected = [None if value is None else read(value) for value in values]
    assert column.to_pylist() == expected


def test_spans_may_be_a_field_of_rows():
    rows = np.zeros(2, np.dtype((np.record, [("id", np.int64), ("name", columns.SPAN)])))
    rows["name"]["position"] = [1, 0]
    rows["name"]["length"] = [2, 1]
    octets = np.frombuffer(bytearray(b"abc"), np.uint8)
    assert columns.text_column(octets, rows["name"]).to_pylist() == ["bc", "a"]


@pytest.mark.parametrize(("position", "length"), [(2, 2), (-1, 2), (4, 1), (2**62, 1)])
def test_a_span_outside_its_array_is_refused(position, length):
    octets = np.zeros(3, np.uint8)
    spans = new_spans(1)
    spans[0] = (position, length)
    with pytest.raises(IndexError):
        columns.text_column(octets, spans)


def test_a_column_that_offsets_cannot_address_is_refused():
    spans = new_spans(3)
    spans["length"] = 2**30
    with pytest.raises(OverflowError, match="make the batch smaller"):
        columns.binary_column(np.zeros(1, np.uint8), spans)


def test_numbers_truths_and_lists():
    present = np.array([True, False, True])
    numbers = columns.number_column(np.arange(3), present)
    assert numbers.to_pylist() == [0, None, 2]
    assert columns.bool_column(np.array([True, False]), None).to_pylist() == [True, False]
    times = columns.number_column(np.array([5], np.int64), type=columns.TIMESTAMP)
    assert times.type == pa.timestamp("ns", "UTC")
    lists = columns.list_column(np.array([0, 2, 2, 3], np.int32), numbers, present)
    lists.validate(full=True)
    assert lists.to_pylist() == [[0, None], None, [2]]


def test_a_type_of_another_size_is_refused():
    with pytest.raises(ValueError, match="sizes differ"):
        columns.number_column(np.zeros(1, np.int32), type=columns.TIMESTAMP)
