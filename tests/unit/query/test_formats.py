from typing import Any

import pyarrow as pa
import pytest
from recorder.v1 import query_pb2

from services.query import formats
from services.runtime.channel import MAX_MESSAGE_BYTES

KINDS = [
    query_pb2.ENTRY_FORMAT_OBJECT,
    query_pb2.ENTRY_FORMAT_JSON,
    query_pb2.ENTRY_FORMAT_ARROW,
]


@pytest.mark.parametrize("kind", KINDS)
def test_an_entry_that_fits_into_no_message_is_left_out_and_counted(disk: Any, kind: int) -> None:
    rows = [{"response_body": "x" * MAX_MESSAGE_BYTES}, {"response_body": "y"}]
    table = disk.table("entries", rows)
    formatter = formats.Formatter(kind, [])
    messages = list(formatter.messages(table))
    assert len(messages) == 1
    assert formatter.left_out == 1


def test_arrow_comes_in_messages_of_a_moderate_size(disk: Any) -> None:
    table = disk.table("entries", [{"index": i, "response_body": "x" * 3000} for i in range(1000)])
    messages = list(formats.Formatter(query_pb2.ENTRY_FORMAT_ARROW, []).messages(table))
    assert 5 < len(messages) < 50
    parts = [pa.ipc.open_stream(message.arrow_ipc).read_all() for message in messages]
    assert pa.concat_tables(parts)["index"].to_pylist() == list(range(1000))


def test_numbers_lists_and_null_are_the_same_in_an_object(disk: Any) -> None:
    row = {"response": '{"answers": [1, 2.5, "x", null, true, {"ttl": []}]}', "src_port": None}
    message = next(
        formats.Formatter(query_pb2.ENTRY_FORMAT_OBJECT, []).messages(disk.table("entries", [row]))
    )
    answers = message.entry["response"]["answers"]
    assert list(answers)[:5] == [1, 2.5, "x", None, True]
    assert message.entry["src"]["port"] is None
