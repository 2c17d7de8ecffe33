"""What an agent has not delivered when it ends, and what the next one finds."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.capture import outbox, spool
from services.capture.frames import CaptureError
from services.capture.outbox import Outbox
from services.capture.spool import Spool
from services.capture.uplink import Uplink
from tests.unit.capture import ingest_server
from tests.unit.capture.ingest_server import Ingest
from tests.unit.capture.test_uplink import frames, losses, packets

LIMIT = 1 << 30
SECONDS = 30.0


def waiting(first: int, rows: int = 1, size: int = 100, *, final: bool = False) -> outbox.Waiting:
    (batch,), _ = outbox.batches(
        "job", 1, [("packets", packets(first, rows, size))], final, 1 << 20
    )
    return batch


def numbers(request: object) -> list[int]:
    batch = request.batch  # type: ignore[attr-defined]
    tables = [outbox.decode(part.arrow_ipc) for part in batch.parts]
    return [int.from_bytes(f.as_py()[:8], "big") for table in tables for f in table.column("frame")]


def test_what_was_appended_is_there_for_the_next_one(tmp_path: Path) -> None:
    first = Spool(tmp_path, LIMIT)
    places = [first.append(b"x" * size) for size in (0, 1, 70_000)]
    first.sent(places[0].serial, 7)
    first.settle(places[1].serial)
    first.name("node-1-abc")
    first.sent(places[0].serial, 8)
    first.close()
    second = Spool(tmp_path, LIMIT)
    assert second.agent_id == "node-1-abc"
    assert [(second.read(place), number) for place, number in second.left] == [
        (b"", 8),
        (b"x", 0),  # its file is still there; the outbox asks the scheduler, which knows it
        (b"x" * 70_000, 0),
    ]
    second.close()


def test_a_folder_has_one_agent(tmp_path: Path) -> None:
    first = Spool(tmp_path, LIMIT)
    with pytest.raises(CaptureError, match="another agent uses the spool"):
        Spool(tmp_path, LIMIT)
    first.close()


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CaptureError, match=r"cannot use the spool .*: Not a directory"):
        Spool(tmp_path / "file" / "below", LIMIT)


def test_nothing_is_left_of_what_has_settled(tmp_path: Path) -> None:
    first = Spool(tmp_path, LIMIT)
    first.name("node-1-abc")
    for _ in range(5):
        first.settle(first.append(b"x" * spool.FILE_BYTES).serial)
    assert first.used_bytes <= 2 * spool.FILE_BYTES
    first.close()
    assert [path.name for path in tmp_path.iterdir()] == ["lock"]


@pytest.mark.parametrize("cut", [1, 15, 16, 17, 60])
def test_a_torn_end_costs_only_the_last_batch(tmp_path: Path, cut: int) -> None:
    first = Spool(tmp_path, LIMIT)
    for number in range(3):
        first.append(bytes([number]) * 50)
    first.close()
    (file,) = tmp_path.glob("*.batches")
    os.truncate(file, file.stat().st_size - cut)
    second = Spool(tmp_path, LIMIT)
    assert [second.read(place)[0] for place, _ in second.left] == [0, 1]
    place = second.append(b"new")
    assert second.read(place) == b"new"
    second.close()
    third = Spool(tmp_path, LIMIT)
    assert [third.read(place)[:3] for place, _ in third.left][-1] == b"new"
    third.close()


def test_garbage_in_the_folder_is_survived(tmp_path: Path) -> None:
    first = Spool(tmp_path, LIMIT)
    first.append(b"x" * 50)
    first.close()
    (file,) = tmp_path.glob("*.batches")
    octets = bytearray(file.read_bytes())
    octets[30] ^= 1
    file.write_bytes(octets)
    (tmp_path / "sent").write_bytes(b"\xff" * 33)
    (tmp_path / "00000009.batches").write_bytes(b"\xff" * 100)
    (tmp_path / "name.batches").write_bytes(b"?")
    (tmp_path / "agent").write_bytes(b"\xff\xfe")
    second = Spool(tmp_path, LIMIT)
    assert (second.left, second.agent_id, second.used_bytes) == ([], "", 0)
    second.close()


def test_a_message_that_is_no_batch_is_left_out(tmp_path: Path) -> None:
    first = Spool(tmp_path, LIMIT)
    first.append(b"\xff" * 50)
    first.close()
    second = Outbox("node-1", LIMIT, spool=Spool(tmp_path, LIMIT))
    assert second.is_empty


@pytest.mark.root
def test_a_full_disk_keeps_batches_in_memory(tmp_path: Path) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(tmp_path)], check=True)
    try:
        disk = Spool(tmp_path, LIMIT)
        box = Outbox("node-1", LIMIT, spool=disk)
        for number in range(20):
            box.put(waiting(number, size=10_000))
        assert box.counters.unspooled > 10
        box.welcome(0, LIMIT, 1 << 20)
        sent = [numbers(request) for _ in range(20) if (request := box.next())]
        assert sent == [[number] for number in range(20)]
        box.acknowledge(20)
        assert box.is_empty
        disk.close()
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def test_memory_holds_its_limit_and_the_disk_the_rest(tmp_path: Path) -> None:
    disk = Spool(tmp_path, LIMIT)
    box = Outbox("node-1", 100_000, spool=disk)
    for number in range(100):
        box.put(waiting(number, size=10_000))
    assert box.used_bytes < 200_000
    assert box.counters.dropped == 0
    box.welcome(0, 50_000, 1 << 20)
    sent = []
    while (request := box.next()) is not None:
        sent += numbers(request)
        box.acknowledge(request.batch.sequence)
    assert sent == list(range(100))
    assert box.is_empty
    assert box.used_bytes == 0
    disk.close()


def test_a_backlog_on_its_way_drops_nothing_that_comes_meanwhile(tmp_path: Path) -> None:
    disk = Spool(tmp_path, LIMIT)
    box = Outbox("node-1", 100_000, spool=disk)
    for number in range(50):
        box.put(waiting(number, size=10_000))
    box.welcome(0, LIMIT, 1 << 20)
    sent = []
    for number in range(50, 200):
        while (request := box.next()) is not None:
            sent += numbers(request)
        assert box.used_bytes < 200_000
        box.put(waiting(number, size=10_000))
        box.acknowledge(len(sent) - 3)
    while (request := box.next()) is not None:
        sent += numbers(request)
        box.acknowledge(len(sent))
    assert box.counters.dropped == 0
    assert sent == list(range(200))
    disk.close()


def test_above_the_limit_of_the_disk_the_oldest_go_and_are_told(tmp_path: Path) -> None:
    disk = Spool(tmp_path, 40 << 20)
    box = Outbox("node-1", 1 << 20, spool=disk)
    for number in range(60):
        box.put(waiting(number, size=1_000_000))
    assert disk.used_bytes <= 40 << 20
    dropped = box.counters.dropped
    assert 20 <= dropped < 40
    box.welcome(0, 8 << 20, 4 << 20)
    sent, told = [], 0
    while (request := box.next()) is not None:
        for part in request.batch.parts:
            table = outbox.decode(part.arrow_ipc)
            if "kind" in table.column_names:
                told += table.column("packets").to_pylist()[0]
            else:
                sent += numbers(request)
        box.acknowledge(request.batch.sequence)
    assert sent == list(range(dropped, 60))
    assert told == dropped
    disk.close()


class Scheduler:
    """What becomes of batches that arrive: as the real one, by agent and number."""

    def __init__(self) -> None:
        self.last: dict[str, int] = {}
        self.stored: list[int] = []

    def take(self, agent: str, request: object) -> None:
        sequence = request.batch.sequence  # type: ignore[attr-defined]
        assert sequence <= self.last.get(agent, 0) + 1, "a hole"
        if sequence == self.last.get(agent, 0) + 1:
            self.last[agent] = sequence
            self.stored += numbers(request)


@given(
    st.lists(st.sampled_from(["put", "put", "send", "send", "acknowledge", "die", "reconnect"])),
    st.sampled_from([1, 3000, LIMIT]),
)
@settings(max_examples=100, deadline=None)
def test_whenever_an_agent_dies_every_batch_is_stored_once_and_in_order(
    steps: list[str], memory: int
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        scheduler, put = Scheduler(), 0
        disk = Spool(Path(folder), LIMIT)
        agent = "agent-0"
        disk.name(agent)
        box = Outbox("node-1", memory, spool=disk)

        def connect(begun: int) -> str:
            name = agent
            while not box.welcome(scheduler.last.get(name, 0), LIMIT, 1 << 20):
                name = f"agent-{begun}"
                box.begin_again(name)
            return name

        agent = connect(0)
        for number, step in enumerate([*steps, "die"], start=1):
            if step == "put":
                box.put(waiting(put))
                put += 1
            elif step == "send" and (request := box.next()) is not None:
                scheduler.take(agent, request)
            elif step == "acknowledge":
                box.acknowledge(scheduler.last.get(agent, 0))
            elif step == "reconnect":
                agent = connect(number)
            elif step == "die":
                os.close(disk._lock)
                disk = Spool(Path(folder), LIMIT)
                box = Outbox("node-1", memory, spool=disk)
                agent = connect(number)
        while (request := box.next()) is not None:
            scheduler.take(agent, request)
            box.acknowledge(scheduler.last.get(agent, 0))
        assert scheduler.stored == list(range(put))
        assert box.is_empty
        disk.close()


AGENT = """
import sys, time
from pathlib import Path
from services.capture.spool import Spool
from services.capture.uplink import Uplink
from tests.unit.capture.test_uplink import packets
port, first, count = map(int, sys.argv[2:])
spool = Spool(Path(sys.argv[1]), 1 << 30)
uplink = Uplink(f"127.0.0.1:{port}", "node-1", "", spool=spool, memory_limit=20_000)
uplink.start()
for number in range(first, first + count):
    uplink.send("job", 1, [("packets", packets(number, size=1000))])
print("put", flush=True)
time.sleep(0.05 * (first % 3))
time.sleep(1000)
"""


def test_agents_that_are_killed_forget_nothing_and_send_nothing_twice(tmp_path: Path) -> None:
    ingest = Ingest(tmp_path / "stored", acknowledgement_delay=0.002)
    server, port = ingest_server.serve(ingest, 0)
    folder = tmp_path / "spool"
    try:
        for turn in range(4):
            if turn == 2:
                server.stop(0).wait()  # away for a while
            if turn == 3:
                server, _ = ingest_server.serve(ingest, port)
            agent = subprocess.Popen(
                [sys.executable, "-c", AGENT, str(folder), str(port), str(turn * 100), "100"],
                stdout=subprocess.PIPE,
                text=True,
            )
            assert agent.stdout is not None
            assert agent.stdout.readline() == "put\n"
            agent.stdout.close()
            agent.send_signal(signal.SIGKILL)
            agent.wait()
        last = Uplink(f"127.0.0.1:{port}", "node-1", "", spool=Spool(folder, LIMIT))
        last.start()
        assert last.flush(SECONDS)
        last.stop()
    finally:
        server.stop(0).wait()
    assert frames(ingest) == list(range(400))
    assert losses(ingest) == []
    assert ingest.wrongs == []
    assert [path.name for path in folder.iterdir()] == ["lock"]


def test_what_is_left_at_the_end_is_delivered_by_the_next_agent(tmp_path: Path) -> None:
    ingest = Ingest(tmp_path / "stored")
    server, port = ingest_server.serve(ingest, 0)
    server.stop(0).wait()
    first = Uplink(f"127.0.0.1:{port}", "node-1", "", spool=Spool(tmp_path / "spool", LIMIT))
    first.start()
    first.send("job", 1, [("packets", packets(1))], final=True)
    time.sleep(0.05)
    first.stop()
    server, _ = ingest_server.serve(ingest, port)
    second = Uplink(f"127.0.0.1:{port}", "node-1", "", spool=Spool(tmp_path / "spool", LIMIT))
    assert second.agent_id == first.agent_id
    second.start()
    assert second.flush(SECONDS)
    second.stop()
    server.stop(0).wait()
    assert frames(ingest) == [1]
    assert [batch.final for batch in ingest.stored()] == [True]


def test_what_was_dropped_is_told_by_the_next_one_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed after any batch: each packet arrives, or the ledger counts it; none is in both."""
    monkeypatch.setattr(spool, "FILE_BYTES", 5_000)
    first = Outbox("node", 1 << 30, spool=Spool(tmp_path / "first", 8 * spool.SMALLEST_BATCH))
    first.spool.name("node-1-abc")
    for batch in range(40):
        first.put(waiting(100 * batch, rows=1 + batch % 3))
        if batch == 20:  # the scheduler was there for a moment
            delivered(first, most=2)
        copy = tmp_path / str(batch)
        shutil.copytree(tmp_path / "first", copy)
        second = Outbox("node", 1 << 30, spool=Spool(copy, LIMIT))
        arrived, told = delivered(second)
        put = {100 * each + row for each in range(batch + 1) for row in range(1 + each % 3)}
        assert arrived <= put
        assert told == len(put - arrived)
        second.spool.close()
    first.spool.close()


def test_what_was_sent_before_older_batches_is_sent_again_under_its_number(tmp_path: Path) -> None:
    first = Outbox("node", LIMIT, spool=Spool(tmp_path / "first", 8 * spool.SMALLEST_BATCH))
    first.spool.name("node-1-abc")
    for batch in range(20):
        first.put(waiting(batch))
    first.spool.limit_bytes = LIMIT  # there is room again: a loss row goes first
    first.welcome(0, 1 << 30, 1 << 20)
    sent = [first.next().batch for _ in range(4)]
    assert [outbox.TABLE_NAMES[part.table] for part in sent[0].parts] == ["losses"]
    shutil.copytree(tmp_path / "first", tmp_path / "second")
    second = Outbox("node", LIMIT, spool=Spool(tmp_path / "second", LIMIT))
    assert second.welcome(0, 1 << 30, 1 << 20), "it has to begin again under another name"
    assert [second.next().batch for _ in sent] == sent
    first.spool.close()
    second.spool.close()


def delivered(box: Outbox, most: int = 1 << 30) -> tuple[set[int], int]:
    """Deliver batches; return the packets that arrived, and how many are told to be missing."""
    box.welcome(0, 1 << 30, 1 << 20)
    arrived, told = [], 0
    while most and (request := box.next()):
        most -= 1
        for part in request.batch.parts:
            table = outbox.decode(part.arrow_ipc)
            if outbox.TABLE_NAMES[part.table] == "losses":
                told += sum(table.column("packets").to_pylist())
            else:
                arrived += [int.from_bytes(f.as_py()[:8], "big") for f in table.column("frame")]
    assert len(arrived) == len(set(arrived)), "something arrived twice"
    return set(arrived), told
