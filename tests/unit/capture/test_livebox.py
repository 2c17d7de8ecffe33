"""Live traffic that waits for a connection."""

import pyarrow as pa
from recorder.v1 import ingest_pb2

from recordings import schema
from services.capture import outbox
from services.capture.livebox import LiveBox


def losses(number: int, octets: int = 10) -> pa.Table:
    row = {
        "node_name": "node-1", "kind": "gap", "start_time": number, "end_time": number,
        "packets": 1, "bytes": 1, "stream": None, "detail": f"{number} " + "x" * octets,
    }  # fmt: skip
    return pa.Table.from_pylist([row], schema=schema.LOSSES)


def taken(box: LiveBox) -> list[ingest_pb2.LiveRows]:
    found = []
    while (request := box.next()) is not None:
        found.append(request.live)
    return found


def details(live: ingest_pb2.LiveRows) -> list[str]:
    return [
        text
        for part in live.parts
        for text in outbox.decode(part.arrow_ipc).column("detail").to_pylist()
    ]


def test_messages_count_on_for_each_run() -> None:
    box = LiveBox("node-1")
    for run in (1, 1, 2):
        box.put(run, [("losses", losses(run)), ("streams", schema.STREAMS.empty_table())])
    found = taken(box)
    assert [(live.run, live.number) for live in found] == [(1, 1), (1, 2), (2, 1)]
    assert [part.table for part in found[0].parts] == [ingest_pb2.TABLE_LOSSES]
    assert box.next() is None


def test_streams_and_packets_stay_where_they_are() -> None:
    box = LiveBox("node-1")
    box.put(1, [("packets", pa.Table.from_pylist([{}] * 0, schema=schema.PACKETS))])
    assert box.next() is None


def test_without_room_the_oldest_goes_and_is_told() -> None:
    box = LiveBox("node-1", memory_limit=100_000)
    for number in range(10):
        box.put(1, [("losses", losses(number, 20_000))])
    found = taken(box)
    assert [live.number for live in found] == list(range(1, len(found) + 1))
    kept = [detail.split()[0] for live in found for detail in details(live) if "x" in detail]
    assert kept == [str(number) for number in range(10 - len(kept), 10)]
    dropped = 10 - len(kept)
    assert f"{dropped} batches with" in details(found[0])[1]


def test_what_waits_is_forgotten_with_the_session() -> None:
    box = LiveBox("node-1")
    box.put(1, [("losses", losses(1))])
    box.clear()
    assert box.next() is None
