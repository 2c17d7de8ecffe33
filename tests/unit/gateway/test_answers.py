"""What a caller can have, and in which form."""

from __future__ import annotations

import json

import pyarrow as pa
import pytest
from recorder.v1 import jobs_pb2, query_pb2

from recordings.schema import ENTRIES
from services.gateway.answers import ARROW, EVENTS, LINES, Arrow, Events, choose, file_name, to_json

OFFERED = [LINES, EVENTS, ARROW]


@pytest.mark.parametrize(
    ("accept", "chosen"),
    [
        ("", LINES),
        ("*/*", LINES),
        ("text/event-stream", EVENTS),
        ("TEXT/Event-Stream ; charset=utf-8", EVENTS),
        ("text/*", EVENTS),
        ("application/vnd.apache.arrow.stream, */*;q=0.1", ARROW),
        ("application/*;q=0.2, text/event-stream;q=0.9", EVENTS),
        ("application/x-ndjson;q=0, */*", EVENTS),
        ("image/png", None),
        ("text/event-stream;q=0", None),
        (",;=,", None),
        (", " * 100_000 + "*/*", None),
    ],
)
def test_what_is_chosen(accept: str, chosen: str | None) -> None:
    assert choose(accept, OFFERED) == chosen


def test_an_entry_is_as_the_query_service_wrote_it() -> None:
    text = '{"n":9007199254740993}'
    assert to_json(query_pb2.QueryResponse(json=text)) == b'{"entry":{"n":9007199254740993}}'


def test_what_is_not_set_is_there_where_programs_look_for_it() -> None:
    found = json.loads(to_json(query_pb2.Figures(entries=3)))
    assert found == {"entries": "3", "errors": "0", "requestBytes": "0", "responseBytes": "0"}


def test_no_text_breaks_out_of_its_event() -> None:
    job = jobs_pb2.Job(reason="a\n\nevent: error\ndata: {}\r\n")
    octets = Events().write(jobs_pb2.WatchJobsResponse(job=job))
    assert octets.count(b"\n") == 3
    assert b"\r" not in octets


def test_an_arrow_stream_without_entries_has_the_schema() -> None:
    form = Arrow()
    status = query_pb2.QueryResponse(status=query_pb2.QueryStatus(entries_scanned=9))
    octets = form.write(status) + form.end()
    with pa.ipc.open_stream(octets) as reader:
        assert reader.schema == ENTRIES
        batch, metadata = reader.read_next_batch_with_custom_metadata()
    assert batch.num_rows == 0
    said = json.loads(metadata["recorder"])
    assert said["status"]["entriesScanned"] == "9"
    assert said["losses"] == []


@pytest.mark.parametrize(
    ("kfl", "name"),
    [
        ('record("shop") and http', "shop.pcapng"),
        ("record( 'a-1' )", "a-1.pcapng"),
        ('record("../x\\"")', "recording.pcapng"),
        ("", "recording.pcapng"),
    ],
)
def test_a_file_is_named_after_its_recording(kfl: str, name: str) -> None:
    assert file_name(kfl, "pcapng") == name
