"""What of the traffic arrives at a scheduler."""

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from google.protobuf import timestamp_pb2
from recorder.v1 import ingest_pb2

from recordings import schema
from services.capture import outbox
from services.capture.agent import Agent, new_engine_factory
from services.capture.frames import open_capture
from services.capture.frames.batch import FrameBatch, Loss
from services.capture.uplink import Uplink
from services.runtime.clock import MovedClock
from tests.unit.capture import conversation, ingest_server
from tests.unit.capture.ingest_server import Ingest
from tests.unit.capture.traffic import START_NS, Conversation, Wire, write_pcap

SECONDS = 60.0
NOW = datetime.fromtimestamp(START_NS / 1e9, UTC)

Step = FrameBatch | Callable[[], None]


class Steps:
    """A live source: its batches come in turn, and things happen between them."""

    def __init__(self, *steps: Step) -> None:
        self._steps = steps
        self.lost: list[Loss] = []

    def batches(self) -> Iterator[FrameBatch]:
        for step in self._steps:
            if isinstance(step, tuple):
                yield step
            else:
                step()

    def losses(self) -> list[Loss]:
        found, self.lost = self.lost, []
        return found

    def close(self) -> None:
        pass


def assignment(job: str, kfl: str, begin: float = 0, end: float = 3600, **more: Any) -> Any:
    """An assignment from `begin` to `end`, in seconds after NOW."""
    times = [timestamp_pb2.Timestamp(), timestamp_pb2.Timestamp()]
    for time, seconds in zip(times, (begin, end), strict=True):
        time.FromDatetime(NOW + timedelta(seconds=seconds))
    more = {"body_limit": 1000, "run": 1, **more}
    return ingest_pb2.Assignment(job=job, kfl=kfl, start_time=times[0], stop_time=times[1], **more)


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[SimpleNamespace]:
    """`rig.assign(…)`, then `rig.run(source)`; then `rig.rows(job, table)` is what arrived."""
    ingest = Ingest(tmp_path / "stored")
    server, port = ingest_server.serve(ingest)
    clock = MovedClock(NOW)
    uplinks: list[Uplink] = []

    def run(
        source: Any,
        packet_memory: int = 1 << 20,
        stop: Any = None,
        sample: float = 100,
        **options: Any,
    ) -> Agent:
        uplink = Uplink(f"127.0.0.1:{port}", "node-1", "10.0.0.7")
        uplinks.append(uplink)
        uplink.start()
        assert uplink.wait_for_assignments(0, SECONDS)
        engine = new_engine_factory("node-1", "10.0.0.7", packet_memory, sample=sample)
        agent = Agent(source, engine, uplink, "node-1", clock, **options)
        agent.run(stop or threading.Event())
        assert uplink.flush(SECONDS)
        return agent

    def rows(job: str, name: str) -> list[dict[str, Any]]:
        found = []
        for batch in ingest.stored():
            for table, arrow_ipc, _ in batch.parts:
                if batch.job == job and outbox.TABLE_NAMES[table] == name:
                    decoded = outbox.decode(arrow_ipc)
                    assert decoded.schema == schema.TABLES[name]
                    found += outbox_rows(decoded)
        return found

    yield SimpleNamespace(
        assign=ingest.assignments.append,
        run=run,
        rows=rows,
        stored=ingest.stored,
        move=lambda seconds: clock.move(timedelta(seconds=seconds)),
    )
    for uplink in uplinks:
        uplink.stop()
    server.stop(0).wait()


def outbox_rows(table: Any) -> list[dict[str, Any]]:
    """Rows with times as nanoseconds."""
    for place, field in enumerate(table.schema):
        if field.type == schema.TIMESTAMP:
            table = table.set_column(place, field.name, table.column(place).cast("int64"))
    found: list[dict[str, Any]] = table.to_pylist()
    return found


def paths(rig: SimpleNamespace, job: str) -> list[str]:
    return [row["request_path"] for row in rig.rows(job, "entries")]


def wait_for_rows(rig: SimpleNamespace, job: str) -> list[dict[str, Any]]:
    """Return the entries of a job, as soon as there are any."""
    deadline = threading.Event()
    for _ in range(int(SECONDS * 100)):
        if rows := rig.rows(job, "entries"):
            return list(rows)
        deadline.wait(0.01)
    return []


def packets_of(rig: SimpleNamespace, job: str) -> Counter[str]:
    return Counter(row["stream"] for row in rig.rows(job, "packets"))


def test_a_stream_that_matches_arrives_whole_and_others_do_not(
    rig: SimpleNamespace, tmp_path: Path
) -> None:
    good, bad = Conversation(40001), Conversation(40002)
    frames = good.opening() + bad.opening()
    frames += good.call("/fine", 200) + bad.call("/fine", 200) + bad.call("/fails", 500)
    frames += bad.closing() + good.closing()
    write_pcap(tmp_path / "capture.pcap", frames)
    rig.assign(assignment("fails", "response.status == 500"))
    agent = rig.run(open_capture(tmp_path / "capture.pcap"), replay=True)
    (stream,) = rig.rows("fails", "streams")
    assert (stream["client_ip"], stream["client_port"]) == ("10.0.0.1", 40002)
    assert (stream["server_ip"], stream["server_port"]) == ("10.0.0.2", 80)
    assert stream["from_start"]
    packets = rig.rows("fails", "packets")
    assert [row["frame"] for row in packets] == [
        bytes(frame) for frame in frames if 40002 in (frame.sport, frame.dport)
    ]
    assert {row["stream"] for row in packets} == {stream["stream"]}
    assert [row["time"] for row in packets] == sorted(row["time"] for row in packets)
    (entry,) = [row for row in rig.rows("fails", "entries") if row["response_status"] == 500]
    assert (entry["stream"], entry["node_name"]) == (stream["stream"], "node-1")
    assert [batch.final for batch in rig.stored()][-1]
    assert agent.progress.frames == len(frames)
    assert agent.progress.packets == len(packets)


def test_what_comes_before_and_after_the_match_in_other_batches_arrives(
    rig: SimpleNamespace,
) -> None:
    wire, talk = Wire(), Conversation(40001)
    parts = [
        talk.opening(),
        talk.request("/a"),
        talk.response(500),
        talk.call("/b", 200),
        talk.call("/c", 200),
        talk.closing(),
    ]
    rig.assign(assignment("fails", "response.status == 500"))
    rig.run(Steps(*(wire.batch(part) for part in parts)))
    frames = [row["frame"] for row in rig.rows("fails", "packets")]
    assert frames == [bytes(frame) for part in parts for frame in part]
    assert paths(rig, "fails") == ["/a", "/b", "/c"]
    assert len(rig.rows("fails", "streams")) == 1


def test_each_job_gets_what_it_asked_for(rig: SimpleNamespace) -> None:
    wire, first, second = Wire(), Conversation(40001), Conversation(40002)
    frames = first.opening() + second.opening() + first.call("/a", 500) + second.call("/b", 404)
    rig.assign(assignment("fails", "response.status == 500"))
    rig.assign(assignment("misses", "response.status == 404"))
    rig.assign(assignment("all", "http"))
    rig.run(Steps(wire.batch(frames)))
    assert paths(rig, "fails") == ["/a"]
    assert paths(rig, "misses") == ["/b"]
    assert sorted(paths(rig, "all")) == ["/a", "/b"]
    assert packets_of(rig, "all") == packets_of(rig, "fails") + packets_of(rig, "misses")


def test_a_second_job_gets_what_came_before_although_the_first_has_it(rig: SimpleNamespace) -> None:
    wire, talk = Wire(), Conversation(40001)
    parts = [talk.opening() + talk.call("/a", 404), talk.call("/b", 500)]
    rig.assign(assignment("misses", "response.status == 404"))
    rig.assign(assignment("fails", "response.status == 500"))
    rig.run(Steps(*(wire.batch(part) for part in parts)))
    assert packets_of(rig, "misses") == packets_of(rig, "fails")
    assert sum(packets_of(rig, "fails").values()) == 7


def test_nothing_is_captured_before_the_start_and_after_the_stop(rig: SimpleNamespace) -> None:
    wire = Wire()

    def talk(port: int, path: str) -> FrameBatch:
        conversation = Conversation(port)
        return wire.batch(conversation.opening() + conversation.call(path, 200))

    rig.assign(assignment("job", "http", begin=10, end=20))
    agent = rig.run(
        Steps(
            talk(40001, "/before"),
            lambda: rig.move(10),
            talk(40002, "/during"),
            lambda: rig.move(10),
            talk(40003, "/after"),
        )
    )
    assert paths(rig, "job") == ["/during"]
    assert agent.progress.frames == 5
    assert [batch.final for batch in rig.stored()] == [True]


def test_the_next_run_does_not_see_calls_of_the_time_between(rig: SimpleNamespace) -> None:
    wire, talk = Wire(), Conversation(40001)
    rig.assign(assignment("job", "http", begin=0, end=10))
    rig.assign(assignment("job", "http", begin=20, end=30, run=2))
    rig.run(
        Steps(
            wire.batch(talk.opening() + talk.call("/first", 200) + talk.request("/waits")),
            lambda: rig.move(10),
            wire.batch(talk.response(200)),
            lambda: rig.move(10),
            wire.batch(talk.call("/second", 200)),
        )
    )
    assert "/waits" not in paths(rig, "job")
    found = {
        (batch.run, row["request_path"])
        for batch in rig.stored()
        for table, arrow_ipc, _ in batch.parts
        if table == ingest_pb2.TABLE_ENTRIES
        for row in outbox_rows(outbox.decode(arrow_ipc))
    }
    assert (1, "/first") in found
    assert (2, "/second") in found
    assert [(batch.run, batch.final) for batch in rig.stored() if batch.final] == [
        (1, True),
        (2, True),
    ]


def test_rows_arrive_while_the_capture_goes_on(rig: SimpleNamespace) -> None:
    wire, talk = Wire(), Conversation(40001)
    seen = []

    def look() -> None:
        rig.move(1)

    def count() -> None:
        wait_for_rows(rig, "job")
        seen.extend(paths(rig, "job"))

    rig.assign(assignment("job", "http"))
    rig.run(Steps(wire.batch(talk.opening() + talk.call("/a", 200)), look, wire.batch([]), count))
    assert seen == ["/a"]


def test_what_waits_in_vain_arrives_though_nothing_else_comes(rig: SimpleNamespace) -> None:
    wire, nothing = Wire(), Wire().batch([])
    question = conversation.udp(40000, 53, bytes.fromhex("12340100000100000000000001610000010001"))
    frame = conversation.ethernet(conversation.ipv4("10.0.0.1", "10.0.0.2", 17, question))
    rows: list[dict[str, Any]] = []
    rig.assign(assignment("names", "dns"))
    rig.run(
        Steps(
            wire.batch([frame]),
            nothing._replace(passed_ns=START_NS + 11 * 10**9),
            lambda: rig.move(1),
            nothing,
            lambda: rows.extend(wait_for_rows(rig, "names")),
        )
    )
    assert [row["error_type"] for row in rows] == ["timeout"]


def test_only_protocols_that_some_job_needs_are_dissected(rig: SimpleNamespace) -> None:
    wire, talk = Wire(), Conversation(40001)
    silent = Conversation(40002)

    def question(port: int) -> list[bytes]:
        asked = conversation.udp(port, 53, bytes.fromhex("12340100000100000000000001610000010001"))
        told = conversation.udp(53, port, bytes.fromhex("12348180000100000000000001610000010001"))
        ends = "10.0.0.1", "10.0.0.2"
        return [
            conversation.ethernet(conversation.ipv4(*ends, 17, asked)),
            conversation.ethernet(conversation.ipv4(*ends[::-1], 17, told)),
        ]

    rig.assign(assignment("names", "dns"))
    rig.assign(assignment("fails", "http and response.status == 500", begin=10, end=20))
    rig.assign(assignment("rest", "tcp and not http", begin=30, end=40))
    agent = rig.run(
        Steps(
            wire.batch([*talk.opening(), *talk.call("/a", 500), *question(1001)]),
            lambda: rig.move(10),
            wire.batch([*talk.call("/b", 500), *question(1002)]),
            lambda: rig.move(10),
            wire.batch([*talk.call("/c", 500), *question(1003)]),
            lambda: rig.move(10),
            wire.batch([*silent.opening(), *silent.raw(b"\0\1\2"), *silent.closing()]),
        )
    )
    assert len(rig.rows("names", "entries")) == 3
    assert paths(rig, "fails") == ["/b"]
    assert [row["protocol_name"] for row in rig.rows("rest", "entries")] == ["tcp"]
    assert agent.progress.messages["http"] == 1


def test_packets_that_had_left_the_store_become_a_loss(rig: SimpleNamespace) -> None:
    wire, talk, noise = Wire(), Conversation(40001), Conversation(40002)
    flood = noise.opening()
    for number in range(40):
        flood += noise.call(f"/{number}", 200, b"x" * 1000)
    rig.assign(assignment("fails", "response.status == 500"))
    rig.run(
        Steps(
            wire.batch(talk.opening() + talk.request("/a")),
            wire.batch(flood),
            wire.batch(talk.response(500)),
        ),
        packet_memory=20_000,
    )
    (stream,) = rig.rows("fails", "streams")
    assert not stream["from_start"]
    assert sum(packets_of(rig, "fails").values()) == 1
    (loss,) = rig.rows("fails", "losses")
    assert (loss["kind"], loss["packets"]) == ("store_overrun", 4)
    assert (loss["stream"], loss["node_name"]) == (stream["stream"], "node-1")
    assert loss["bytes"] > 4 * 50
    assert START_NS < loss["start_time"] < loss["end_time"] <= START_NS + 4000


def test_fragments_of_a_stream_that_matches_arrive_before_and_after_the_match(
    rig: SimpleNamespace,
) -> None:
    wire, talk = Wire(), Conversation(40001)

    def in_fragments(packets: list[Any], number: int) -> list[bytes]:
        octets = bytes(packets[0])
        parts = conversation.fragments(octets[14:], [24, 48], number)
        return [octets[:14] + part for part in parts]

    opening, requests = talk.opening(), talk.request("/a") + talk.request("/b")
    before, after = in_fragments(talk.response(500), 1), in_fragments(talk.response(200), 2)
    rig.assign(assignment("fails", "response.status == 500"))
    rig.run(
        Steps(
            wire.batch([*opening, *requests, *before[:2]]),
            wire.batch([before[2], after[2]]),
            wire.batch(after[:2]),
        )
    )
    frames = [row["frame"] for row in rig.rows("fails", "packets")]
    expected = [bytes(frame) for frame in (*opening, *requests)] + before + after
    assert Counter(frames) == Counter(expected)
    assert len(packets_of(rig, "fails")) == 1
    assert rig.rows("fails", "losses") == []


def test_losses_of_the_source_reach_every_run_that_is_on(rig: SimpleNamespace) -> None:
    wire, talk = Wire(), Conversation(40001)
    source = Steps(wire.batch(talk.opening()), lambda: source.lost.append(lost), wire.batch([]))
    lost = Loss("kernel_drop", START_NS, START_NS + 5, packets=7, detail="the ring was full")
    for job in ("a", "b"):
        rig.assign(assignment(job, "http"))
    rig.assign(assignment("later", "http", begin=100))
    rig.run(source)
    for job in ("a", "b"):
        (loss,) = rig.rows(job, "losses")
        assert (loss["kind"], loss["packets"], loss["stream"]) == ("kernel_drop", 7, None)
        assert loss["detail"] == "the ring was full"
    assert rig.rows("later", "losses") == []


def test_a_sample_has_whole_streams_and_the_recording_says_what_it_is(
    rig: SimpleNamespace,
) -> None:
    wire, frames = Wire(), {}
    for port in range(40_000, 40_040):
        talk = Conversation(port)
        frames[port] = talk.opening() + talk.call("/a", 200, b"x" * 100) + talk.closing()
    in_turn = [each for packets in zip(*frames.values(), strict=True) for each in packets]
    middle = len(in_turn) // 2
    rig.assign(assignment("part", "http"))
    agent = rig.run(
        Steps(wire.batch(in_turn[:middle]), lambda: rig.move(1), wire.batch(in_turn[middle:])),
        sample=30,
    )
    ports = {row["stream"]: row["client_port"] for row in rig.rows("part", "streams")}
    assert 0 < len(ports) < len(frames)
    for stream, port in ports.items():
        sent = [row["frame"] for row in rig.rows("part", "packets") if row["stream"] == stream]
        assert sent == [bytes(frame) for frame in frames[port]]
    absent = [bytes(f) for port, all_ in frames.items() if port not in ports.values() for f in all_]
    begin, left_out = rig.rows("part", "losses")
    assert {begin["kind"], left_out["kind"]} == {"sampled"}
    assert begin["detail"].startswith("30 percent of the streams are looked at")
    assert (begin["start_time"], begin["end_time"]) == (START_NS, START_NS + 3600 * 10**9)
    assert (begin["packets"], left_out["packets"]) == (0, len(absent))
    assert left_out["bytes"] == sum(map(len, absent))
    assert agent.progress.left_out_packets == len(absent)
    assert agent.progress.left_out_octets == sum(map(len, absent))


def test_an_agent_that_begins_during_a_run_says_so(rig: SimpleNamespace) -> None:
    rig.assign(assignment("before", "http", -60))
    rig.assign(assignment("since", "http", 0))
    talk, wire = Conversation(40001), Wire()
    rig.run(Steps(wire.batch(talk.opening() + talk.call("/a", 200))))
    [loss] = rig.rows("before", "losses")
    assert (loss["kind"], loss["node_name"]) == ("agent_restart", "node-1")
    assert (loss["start_time"], loss["end_time"]) == (START_NS - 60 * 10**9, START_NS)
    assert "began to capture on this node while the recording was on" in loss["detail"]
    assert rig.rows("since", "losses") == []
    assert paths(rig, "before") == paths(rig, "since") == ["/a"]


def test_a_request_without_an_answer_arrives_when_the_capture_ends(rig: SimpleNamespace) -> None:
    wire, talk = Wire(), Conversation(40001)
    rig.assign(assignment("job", "http"))
    rig.run(Steps(wire.batch(talk.opening() + talk.request("/waits"))))
    (entry,) = rig.rows("job", "entries")
    assert entry["request_path"] == "/waits"
    assert entry["response_status"] is None
    assert sum(packets_of(rig, "job").values()) == 4


def test_each_job_gets_bodies_of_its_length(rig: SimpleNamespace) -> None:
    wire, talk = Wire(), Conversation(40001)
    rig.assign(assignment("short", "http", body_limit=4))
    rig.assign(assignment("long", "http", body_limit=100))
    rig.run(Steps(wire.batch(talk.opening() + talk.call("/a", 200, b"0123456789"))))
    bodies = {}
    for job in ("short", "long"):
        (entry,) = rig.rows(job, "entries")
        bodies[job] = (entry["response_body"], entry["response_body_truncated"])
    assert bodies["short"] == ("0123", True)
    assert bodies["long"][0] == "0123456789"
    assert not bodies["long"][1]


def test_a_replay_waits_until_someone_wants_it(rig: SimpleNamespace, tmp_path: Path) -> None:
    talk = Conversation(40001)
    write_pcap(tmp_path / "capture.pcap", talk.opening() + talk.call("/a", 200))
    rig.assign(assignment("job", "http", begin=60))
    stop = threading.Event()
    timer = threading.Timer(0.3, rig.move, [60])
    timer.start()
    rig.run(open_capture(tmp_path / "capture.pcap"), replay=True, stop=stop)
    timer.join()
    assert paths(rig, "job") == ["/a"]


def test_a_replay_that_nobody_wants_can_be_stopped(rig: SimpleNamespace, tmp_path: Path) -> None:
    talk = Conversation(40001)
    write_pcap(tmp_path / "capture.pcap", talk.opening() + talk.call("/a", 200))
    stop = threading.Event()
    timer = threading.Timer(0.1, stop.set)
    timer.start()
    agent = rig.run(open_capture(tmp_path / "capture.pcap"), replay=True, stop=stop)
    timer.join()
    assert agent.progress.frames == 0
    assert rig.stored() == []


HEAD = b"GET /%s?token=s3cret HTTP/1.1\r\nHost: shop\r\nAuthorization: s3cret\r\n\r\n"
REDACTS = (
    'redact("request.headers.Authorization", "request.query.token", "response.body.json().key")'
)


def secret_call(talk: Conversation, path: bytes, status: int) -> list[Any]:
    return talk.raw(HEAD % path) + talk.response(status, b'{"key": "s3cret", "n": 1}')


def all_octets(rig: SimpleNamespace, job: str) -> bytes:
    return b"".join(
        str(outbox.decode(part[1]).to_batches()).encode() + part[1]
        for batch in rig.stored()
        for part in batch.parts
        if batch.job == job
    )


def test_what_a_job_redacts_never_leaves_the_node(rig: SimpleNamespace) -> None:
    wire, talk = Wire(), Conversation(40001)
    parts = [
        talk.opening() + secret_call(talk, b"earlier", 200),
        secret_call(talk, b"match", 500),
        secret_call(talk, b"later", 200) + talk.closing(),
    ]
    rig.assign(assignment("hides", f"response.status == 500 and {REDACTS}"))
    rig.assign(assignment("shows", 'response.status == 500 and request.query.token == "s3cret"'))
    rig.run(Steps(*(wire.batch(part) for part in parts)))
    assert b"s3cret" not in all_octets(rig, "hides")
    assert all_octets(rig, "shows").count(b"s3cret") > 6
    for job, secret in (("hides", "[REDACTED]"), ("shows", "s3cret")):
        assert paths(rig, job) == ["/earlier", "/match", "/later"]
        for row in rig.rows(job, "entries"):
            assert row["request_headers"][1] == {"name": "Authorization", "value": secret}
            assert row["request_url"].endswith(f"?token={secret}")
            assert row["response_body"] == f'{{"key": "{secret}", "n": 1}}'


def test_packets_of_a_job_that_redacts_are_cut_behind_their_headers(rig: SimpleNamespace) -> None:
    wire, talk = Wire(), Conversation(40001)
    opening = talk.opening()
    first, second = secret_call(talk, b"a", 500), secret_call(talk, b"b", 500)
    closing = talk.closing()
    rig.assign(assignment("hides", f"http and {REDACTS}"))
    rig.run(Steps(wire.batch(opening + first), lambda: rig.move(1), wire.batch(second + closing)))
    rows = rig.rows("hides", "packets")
    frames = [bytes(frame) for frame in [*opening, *first, *second, *closing]]
    assert [row["original_length"] for row in rows] == [len(frame) for frame in frames]
    assert [row["frame"] for row in rows] == [frame[: 14 + 20 + 20] for frame in frames]
    losses = rig.rows("hides", "losses")
    assert {loss["kind"] for loss in losses} == {"redacted"}
    assert 1 <= len(losses) <= 2, "as soon as there is one, and the rest at the end"
    assert sum(loss["packets"] for loss in losses) == 4
    assert sum(loss["bytes"] for loss in losses) == sum(len(frame) - 54 for frame in first + second)
    assert losses[0]["detail"].startswith("the job's filter has redact()")


def test_packets_and_streams_do_not_show_addresses_that_are_redacted(rig: SimpleNamespace) -> None:
    wire, talk = Wire(), Conversation(40001)
    rig.assign(assignment("hides", 'http and redact("src.ip", "src.port")'))
    rig.run(Steps(wire.batch(talk.opening() + talk.call("/a", 200))))
    assert [row["frame"] for row in rig.rows("hides", "packets")] == [b""] * 5
    (stream,) = rig.rows("hides", "streams")
    assert (stream["client_ip"], stream["client_port"]) == ("[REDACTED]", 0)
    (entry,) = rig.rows("hides", "entries")
    assert (entry["src_ip"], entry["src_port"]) == ("[REDACTED]", None)


def test_a_body_is_redacted_before_it_is_cut(rig: SimpleNamespace) -> None:
    wire, talk = Wire(), Conversation(40001)
    rig.assign(assignment("long", "http", body_limit=100))
    kfl = 'http and redact("response.body.json().key")'
    rig.assign(assignment("short", kfl, body_limit=22))
    body = b'{"key": "s3cret", "n": 1}'
    rig.run(Steps(wire.batch(talk.opening() + talk.call("/a", 200, body))))
    (entry,) = rig.rows("short", "entries")
    assert entry["response_body"] == '{"key": "[REDACTED]", '
    assert entry["response_body_truncated"]


def test_a_body_that_was_cut_in_the_capture_is_redacted_as_a_whole(rig: SimpleNamespace) -> None:
    wire, talk = Wire(), Conversation(40001)
    rig.assign(assignment("job", 'http and redact("response.body.json().key")', body_limit=14))
    body = b'{"key": "s3cret", "n": 1}'
    rig.run(Steps(wire.batch(talk.opening() + talk.call("/a", 200, body))))
    (entry,) = rig.rows("job", "entries")
    assert (entry["response_body"], entry["response_body_truncated"]) == ("[REDACTED]", True)
