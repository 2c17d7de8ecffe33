"""What the scheduler gets from an agent, over real connections that break."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pytest
from google.protobuf import timestamp_pb2
from recorder.v1 import ingest_pb2

from recordings import schema
from services.capture import missing, outbox
from services.capture.uplink import Uplink
from tests.unit.capture import ingest_server
from tests.unit.capture.ingest_server import Ingest

SERVER = "from tests.unit.capture import ingest_server; ingest_server.main()"
SECONDS = 30.0  # more than any of these takes, even on a busy machine


def packets(first: int, rows: int = 1, size: int = 100) -> pa.Table:
    """Frames whose first octets and times count on from `first`."""
    numbers = range(first, first + rows)
    return pa.table(
        {
            "stream": ["00000000000000aa"] * rows,
            "node_name": ["node-1"] * rows,
            "time": list(numbers),
            "link_type": [1] * rows,
            "original_length": [size] * rows,
            "frame": [number.to_bytes(8, "big").ljust(size, b"x") for number in numbers],
        },
        schema=schema.PACKETS,
    )


def frames(ingest: Ingest, job: str = "job") -> list[int]:
    """Numbers of the frames on the server's disk, in the order in which they came."""
    found = []
    for batch in ingest.stored():
        for table, arrow_ipc, rows in batch.parts:
            if table == ingest_pb2.TABLE_PACKETS and batch.job == job:
                decoded = outbox.decode(arrow_ipc)
                assert decoded.schema == schema.PACKETS
                assert decoded.num_rows == rows
                found += [int.from_bytes(f.as_py()[:8], "big") for f in decoded.column("frame")]
    return found


def times_as_numbers(table: pa.Table) -> pa.Table:
    """A datetime has no nanoseconds."""
    return table.cast(
        pa.schema(
            pa.field(f.name, pa.int64() if f.type == schema.TIMESTAMP else f.type)
            for f in table.schema
        )
    )


def losses(ingest: Ingest) -> list[dict[str, object]]:
    return [
        row
        for batch in ingest.stored()
        for table, arrow_ipc, _ in batch.parts
        if table == ingest_pb2.TABLE_LOSSES
        for row in times_as_numbers(outbox.decode(arrow_ipc)).to_pylist()
    ]


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[SimpleNamespace]:
    """A server (`rig.ingest`, `rig.serve()`) and uplinks to it (`rig.uplink()`), which end."""
    ingest = Ingest(tmp_path / "stored")
    state = SimpleNamespace(ingest=ingest, servers=[], uplinks=[], port=0)

    def serve() -> None:
        server, state.port = ingest_server.serve(ingest, state.port)
        state.servers.append(server)

    def uplink(**options: object) -> Uplink:
        made = Uplink(f"127.0.0.1:{state.port}", "node-1", "10.0.0.7", **options)  # type: ignore[arg-type]
        state.uplinks.append(made)
        made.start()
        return made

    state.serve, state.uplink = serve, uplink
    serve()
    yield state
    for made in state.uplinks:
        made.stop()
    for server in state.servers:
        server.stop(0).wait()


def test_batches_arrive_in_order_with_their_run(rig: SimpleNamespace) -> None:
    uplink = rig.uplink()
    for number in range(10):
        uplink.send("job", 3, [("packets", packets(number))])
    uplink.send("job", 3, [], final=True)
    assert uplink.flush(SECONDS)
    stored = rig.ingest.stored()
    assert frames(rig.ingest) == list(range(10))
    assert {(batch.job, batch.run) for batch in stored} == {("job", 3)}
    assert [batch.sequence for batch in stored] == list(range(1, 12))
    assert [batch.final for batch in stored] == [False] * 10 + [True]
    hello = rig.ingest.hellos[0]
    assert (hello.node, hello.node_ip, hello.protocol_version) == ("node-1", "10.0.0.7", 1)


def test_two_agents_of_one_node_have_different_names(rig: SimpleNamespace) -> None:
    first, second = rig.uplink(), rig.uplink()
    for uplink in (first, second):
        uplink.send("job", 1, [("packets", packets(1))])
        assert uplink.flush(SECONDS)
    assert len({hello.agent_id for hello in rig.ingest.hellos}) == 2


def test_assignments_arrive(rig: SimpleNamespace) -> None:
    rig.ingest.assignments = [
        ingest_pb2.Assignment(
            job="job",
            run=2,
            kfl="http",
            start_time=timestamp_pb2.Timestamp(seconds=5, nanos=7),
            stop_time=timestamp_pb2.Timestamp(seconds=9),
            body_limit=10,
        )
    ]
    uplink = rig.uplink()
    assert uplink.wait_for_assignments(0, SECONDS)
    (assignment,) = uplink.assignments
    assert (assignment.job, assignment.run, assignment.kfl) == ("job", 2, "http")
    assert (assignment.start_ns, assignment.stop_ns) == (5_000_000_007, 9_000_000_000)
    assert assignment.body_limit == 10


def test_a_server_that_breaks_every_session_gets_everything_once(rig: SimpleNamespace) -> None:
    rig.ingest.break_after = 4
    uplink = rig.uplink()
    for number in range(20):
        uplink.send("job", 1, [("packets", packets(number))])
    assert uplink.flush(SECONDS)
    assert frames(rig.ingest) == list(range(20))
    assert rig.ingest.wrongs == []
    assert uplink.reconnects >= 4


def test_batches_sent_while_the_server_is_away_arrive_when_it_is_back(rig: SimpleNamespace) -> None:
    uplink = rig.uplink()
    uplink.send("job", 1, [("packets", packets(0))])
    assert uplink.flush(SECONDS)
    rig.servers.pop().stop(0).wait()
    for number in range(1, 6):
        uplink.send("job", 1, [("packets", packets(number))])
    assert not uplink.flush(0.05)
    rig.serve()
    assert uplink.flush(SECONDS)
    assert frames(rig.ingest) == list(range(6))
    assert [batch.sequence for batch in rig.ingest.stored()] == list(range(1, 7))


def test_a_killed_server_process_gets_everything_once(tmp_path: Path) -> None:
    file = tmp_path / "stored"

    def start(port: int) -> tuple[subprocess.Popen[str], int]:
        process = subprocess.Popen(
            [sys.executable, "-c", SERVER, str(file), str(port), "0.001"],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        return process, int(process.stdout.readline())

    process, port = start(0)
    uplink = Uplink(f"127.0.0.1:{port}", "node-1", "10.0.0.7")
    uplink.start()
    try:
        sent = 0
        for _ in range(3):
            for _ in range(100):
                uplink.send("job", 1, [("packets", packets(sent, size=1000))])
                sent += 1
            begun = len(Ingest(file).stored())
            while len(Ingest(file).stored()) < begun + 20:
                time.sleep(0.001)
            assert process.stdout is not None
            process.stdout.close()
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
            process, _ = start(port)
        uplink.send("job", 1, [], final=True)
        assert uplink.flush(SECONDS)
    finally:
        uplink.stop()
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()
    assert frames(Ingest(file)) == list(range(sent))


def test_no_more_than_the_window_is_under_way(rig: SimpleNamespace) -> None:
    rig.ingest.window_bytes = 5000
    rig.ingest.acknowledge = False
    uplink = rig.uplink()
    for number in range(30):
        uplink.send("job", 1, [("packets", packets(number, size=1000))])
    assert not uplink.flush(0.3)
    sizes = [batch.size for batch in rig.ingest.stored()]
    assert 0 < sum(sizes) <= 5000
    rig.ingest.acknowledge = True
    rig.servers.pop().stop(0).wait()
    rig.serve()
    assert uplink.flush(SECONDS)
    assert frames(rig.ingest) == list(range(30))


def test_a_window_smaller_than_a_batch_does_not_stop_everything(rig: SimpleNamespace) -> None:
    rig.ingest.window_bytes = 1
    uplink = rig.uplink()
    for number in range(3):
        uplink.send("job", 1, [("packets", packets(number))])
    assert uplink.flush(SECONDS)
    assert frames(rig.ingest) == [0, 1, 2]


@pytest.mark.parametrize("early", [True, False])
def test_a_large_batch_is_split_by_rows(rig: SimpleNamespace, early: bool) -> None:
    """Also when it was queued before the scheduler could say how much it takes."""
    rig.ingest.max_batch_bytes = 20_000
    uplink = rig.uplink()
    if not early:
        assert uplink.wait_for_assignments(0, SECONDS)
    uplink.send("job", 1, [("packets", packets(0, rows=200, size=1000))], final=True)
    assert uplink.flush(SECONDS)
    stored = rig.ingest.stored()
    assert frames(rig.ingest) == list(range(200))
    assert len(stored) >= 10
    assert max(batch.size for batch in stored) <= 20_000
    assert [batch.final for batch in stored] == [False] * (len(stored) - 1) + [True]
    assert rig.ingest.wrongs == []


def test_a_row_larger_than_a_batch_becomes_a_loss(rig: SimpleNamespace) -> None:
    rig.ingest.max_batch_bytes = 20_000
    uplink = rig.uplink()
    assert uplink.wait_for_assignments(0, SECONDS)
    table = pa.concat_tables([packets(1), packets(2, size=50_000), packets(3)])
    uplink.send("job", 1, [("packets", table)])
    assert uplink.flush(SECONDS)
    assert sorted(frames(rig.ingest)) == [1, 3]
    (loss,) = losses(rig.ingest)
    assert (loss["kind"], loss["packets"], loss["bytes"]) == ("uplink_overrun", 1, 50_000)


def test_rows_without_headers_are_not_as_large_as_the_headers_of_all_others() -> None:
    """Arrow sends the offsets of a whole table with a slice of it whose lists are all empty."""
    headers = [{"name": str(number), "value": "x"} for number in range(20)]
    entry = {"stream": "8f3a000000000001", "index": 0, "start_time": 1}
    rows = [entry | {"request_headers": headers}] * 2_000 + [entry] * 500
    names = [*entry, "request_headers"]
    table = pa.Table.from_pylist(rows, pa.schema([schema.ENTRIES.field(name) for name in names]))
    made, too_large = outbox.batches("job", 1, [("entries", table)], False, 100_000)
    assert too_large == missing.Content()
    assert sum(batch.content.entries for batch in made) == len(rows)


def test_above_the_memory_limit_the_oldest_are_dropped_and_told(rig: SimpleNamespace) -> None:
    rig.servers.pop().stop(0).wait()
    uplink = rig.uplink(memory_limit=100_000)
    for number in range(100):
        uplink.send("job", 1, [("packets", packets(number, size=10_000))])
    uplink.send("job", 1, [], final=True)
    dropped = uplink.counters.dropped
    assert dropped >= 90
    rig.serve()
    assert uplink.flush(SECONDS)
    kept = frames(rig.ingest)
    assert kept == list(range(dropped, 100))
    (loss,) = losses(rig.ingest)
    assert loss["kind"] == "uplink_overrun"
    assert (loss["packets"], loss["bytes"]) == (dropped, dropped * 10_000)
    assert loss["node_name"] == "node-1"
    assert (loss["start_time"], loss["end_time"]) == (0, dropped - 1)
    assert f"{dropped} batches" in str(loss["detail"])
    stored = rig.ingest.stored()
    assert [batch.sequence for batch in stored] == list(range(1, len(stored) + 1))
    assert stored[-1].final, "the loss is told before the run ends"


def test_a_dropped_final_batch_still_ends_its_run(rig: SimpleNamespace) -> None:
    rig.servers.pop().stop(0).wait()
    uplink = rig.uplink(memory_limit=30_000)
    uplink.send("first", 1, [("packets", packets(1, size=10_000))], final=True)
    for number in range(5):
        uplink.send("second", 1, [("packets", packets(number, size=10_000))])
    rig.serve()
    assert uplink.flush(SECONDS)
    ended = [batch for batch in rig.ingest.stored() if batch.final]
    assert [batch.job for batch in ended] == ["first"]
    assert frames(rig.ingest, "first") == []
    assert {loss["packets"] for loss in losses(rig.ingest)} == {1, uplink.counters.dropped - 1}


def test_an_importer_waits_instead_of_dropping(rig: SimpleNamespace) -> None:
    rig.ingest.acknowledgement_delay = 0.005
    uplink = rig.uplink(memory_limit=50_000, import_job="job", blocking=True)
    for number in range(50):
        uplink.send("job", 1, [("packets", packets(number, size=10_000))])
    assert uplink.flush(SECONDS)
    assert frames(rig.ingest) == list(range(50))
    assert uplink.counters.dropped == 0
    assert rig.ingest.hellos[0].import_job == "job"


def test_stopping_frees_an_importer_that_waits(rig: SimpleNamespace) -> None:
    rig.servers.pop().stop(0).wait()
    uplink = rig.uplink(memory_limit=1000, blocking=True)

    def fill() -> None:
        for number in range(3):
            uplink.send("job", 1, [("packets", packets(number, size=10_000))])

    thread = threading.Thread(target=fill)
    thread.start()
    uplink.stop()
    thread.join(SECONDS)
    assert not thread.is_alive()
    assert not uplink.flush(0)


def test_a_refused_batch_is_counted_and_the_rest_arrives(rig: SimpleNamespace) -> None:
    rig.ingest.refused = frozenset({2})
    uplink = rig.uplink()
    for number in range(1, 5):
        uplink.send("job", 1, [("packets", packets(number))])
    assert uplink.flush(SECONDS)
    assert frames(rig.ingest) == [1, 3, 4]
    assert uplink.counters.refused == 1


def test_a_server_that_lost_its_disk_is_served_under_another_name(rig: SimpleNamespace) -> None:
    uplink = rig.uplink()
    for number in range(3):
        uplink.send("job", 1, [("packets", packets(number))])
    assert uplink.flush(SECONDS)
    rig.servers.pop().stop(0).wait()
    rig.ingest.file.unlink()
    uplink.send("job", 1, [("packets", packets(3))])
    rig.serve()
    assert uplink.flush(SECONDS)
    (batch,) = rig.ingest.stored()
    assert batch.sequence == 1
    assert frames(rig.ingest) == [3]
    assert rig.ingest.wrongs == []


def test_why_there_is_no_connection_can_be_told(rig: SimpleNamespace) -> None:
    rig.servers.pop().stop(0).wait()
    uplink = rig.uplink()
    deadline = threading.Event()
    for _ in range(int(SECONDS * 100)):
        if uplink.failure:
            break
        deadline.wait(0.01)
    assert uplink.failure.startswith("UNAVAILABLE")
