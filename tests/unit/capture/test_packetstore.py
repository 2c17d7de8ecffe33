"""The packet store against a plain model of it."""

from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recordings import schema
from services.capture import packetring
from services.capture.frames.batch import FRAME, CaptureError, FrameBatch
from services.capture.packetstore import PacketStore, choose, follow, packets_table

CELL = packetring.CELL_SIZE


def batch_of(frames: list[bytes], first_ns: int = 0) -> FrameBatch:
    """Frames one behind the other with a gap between; their times are first_ns, first_ns + 1 …"""
    rows = np.zeros(len(frames), FRAME)
    octets = bytearray(b"\xee")
    for index, frame in enumerate(frames):
        rows[index] = (first_ns + index, len(octets), len(frame), len(frame) + 5, 1, 0, 0)
        octets += frame + b"\xee"
    return FrameBatch(np.frombuffer(octets, np.uint8), rows)


def ids(numbers: np.ndarray) -> pa.Array:
    return pa.array([f"{number:016x}" for number in numbers], pa.string())


def frames_of(store: PacketStore, *streams: int) -> list[tuple[str, int, bytes]]:
    packets = store.take(np.array(streams, np.int64))
    table = packets_table(packets, ids, "node-1")
    assert table.schema == schema.PACKETS
    times = table["time"].cast(pa.int64()).to_pylist()
    return list(zip(table["stream"].to_pylist(), times, table["frame"].to_pylist(), strict=True))


@dataclass
class Model:
    """What the store should do, in the simplest way: a list of frames, the oldest first."""

    cells: int
    head: int = 0
    tail: int = 0
    frames: list[tuple[int, int, int, bytes, int]] = field(default_factory=list)
    lost: dict[int, list[tuple[int, int]]] = field(default_factory=dict)

    def drop_until(self, tail: int) -> None:
        """Drop frames as long as the ring reaches back before `tail`."""
        while self.tail < tail:
            if self.frames and self.frames[0][0] == self.tail:
                address, stream, time, octets, size = self.frames.pop(0)
                self.lost.setdefault(stream, []).append((time, len(octets)))
                self.tail = address + size
            else:  # the unused end of the ring
                self.tail = self.frames[0][0] if self.frames else self.head

    def put(self, stream: int, time: int, octets: bytes) -> None:
        size = 1 + -(-len(octets) // CELL)
        if size > self.cells:
            self.lost.setdefault(stream, []).append((time, len(octets)))
            return
        left = self.cells - self.head % self.cells
        if left < size:
            self.drop_until(self.head + left - self.cells)
            self.head += left
        self.drop_until(self.head + size - self.cells)
        self.frames.append((self.head, stream, time, octets, size))
        self.head += size

    def take(self, stream: int) -> list[tuple[str, int, bytes]]:
        return [(f"{s:016x}", time, o) for _, s, time, o, _ in self.frames if s == stream]


lengths = st.one_of(st.integers(0, 3 * CELL), st.sampled_from([0, CELL - 1, CELL, CELL + 1]))
batches = st.lists(
    st.lists(st.tuples(st.integers(0, 6), lengths), max_size=8), min_size=1, max_size=12
)


@settings(deadline=None, max_examples=300)
@given(capacity=st.integers(CELL, 12 * CELL), batches=batches, asked=st.data())
def test_keeps_the_newest_frames_and_counts_the_others(capacity, batches, asked):
    store, model = PacketStore(capacity, 8), Model(capacity // CELL)
    time = put = 0
    highest = 0
    for number, batch in enumerate(batches):
        # As the pipeline does it: streams are numbered as they appear.
        streams = []
        for stream, _ in batch:
            streams.append(min(stream, highest + 1))
            highest = max(highest, streams[-1])
        frames = [
            bytes([number, stream, index] * length)[:length]
            for index, (stream, length) in enumerate(batch)
        ]
        store.put(batch_of(frames, time), np.array(streams, np.int64))
        for stream, frame in zip(streams, frames, strict=True):
            if stream:
                model.put(stream, time, frame)
                put += 1
            time += 1
        wanted = asked.draw(st.permutations(range(1, 8)))
        assert frames_of(store, *wanted) == [row for s in wanted for row in model.take(s)]
    for stream in range(1, highest + 1):
        lost = model.lost.get(stream, [])
        times = [when for when, _ in lost] or [0]
        assert store.losses(stream) == (
            len(lost),
            sum(length for _, length in lost),
            min(times),
            max(times),
            True,
        )
    assert store.stored_packets == len(model.frames)
    assert store.stored_packets + store.overwritten_packets == put
    assert store.forgotten_streams == 0


@settings(deadline=None, max_examples=200)
@given(
    capacity=st.integers(4 * CELL, 40 * CELL),
    most_streams=st.integers(1, 4),
    streams=st.lists(st.integers(1, 40), max_size=120),
)
def test_gives_no_stream_the_frames_of_another_when_there_are_too_many(
    capacity, most_streams, streams
):
    store, model = PacketStore(capacity, most_streams), Model(capacity // CELL)
    for time, stream in enumerate(streams):
        frame = bytes([stream]) * (stream % 50)
        store.put(batch_of([frame], time), np.array([stream]))
        model.put(stream, time, frame)
    marks = store.are_incomplete(np.arange(1, 41))
    for stream in range(1, 41):
        lost = store.losses(stream)
        assert marks[stream - 1] == (lost.packets > 0 or not lost.is_exact)
        found, right = frames_of(store, stream), model.take(stream)
        assert found == right[len(right) - len(found) :]
        if lost.is_exact:
            assert found == right
            assert lost.packets == len(model.lost.get(stream, []))
    assert store.stored_packets + store.overwritten_packets == len(streams)


def test_a_stream_that_was_taken_can_be_taken_again_and_goes_on():
    store = PacketStore(10_000, 4)
    store.put(batch_of([b"syn", b"ack"], 100), np.array([1, 1]))
    assert frames_of(store, 1) == [("0" * 15 + "1", 100, b"syn"), ("0" * 15 + "1", 101, b"ack")]
    store.put(batch_of([b"fin"], 102), np.array([1]))
    assert [frame for _, _, frame in frames_of(store, 1)] == [b"syn", b"ack", b"fin"]


def test_an_unknown_stream_gives_nothing():
    store = PacketStore(10_000, 4)
    assert frames_of(store, 7) == []
    assert store.losses(7) == (0, 0, 0, 0, True)


def test_a_frame_larger_than_the_store_is_counted_as_overwritten():
    store = PacketStore(1_000, 4)
    store.put(batch_of([bytes(2_000), b"small"], 50), np.array([1, 1]))
    assert [frame for _, _, frame in frames_of(store, 1)] == [b"small"]
    assert store.losses(1) == (1, 2_000, 50, 50, True)


def test_streams_may_be_a_field_of_a_record_array():
    store = PacketStore(10_000, 4)
    packets = np.zeros(2, [("other", np.int32), ("stream", np.int64)])
    packets["stream"] = (1, 2)
    store.put(batch_of([b"one", b"two"]), packets["stream"])
    assert [frame for _, _, frame in frames_of(store, 2, 1)] == [b"two", b"one"]


def test_a_wrong_number_of_streams_is_refused():
    with pytest.raises(ValueError, match="1 stream numbers for 2 frames"):
        PacketStore(10_000, 4).put(batch_of([b"one", b"two"]), np.array([1]))


@pytest.mark.parametrize(("capacity", "streams"), [(0, 4), (10_000, 0), (-1, 1)])
def test_a_store_without_room_is_refused(capacity, streams):
    with pytest.raises(ValueError, match="it needs"):
        PacketStore(capacity, streams)


def test_follows_streams_straight_from_the_batch():
    batch = batch_of([b"one", b"two", b"three", b""], 10)
    streams = np.array([1, 2, 1, 0])
    table = packets_table(follow(batch, streams, np.array([1, 9])), ids, "node-1")
    assert table.drop_columns("time").to_pylist() == [
        {
            "stream": "0000000000000001",
            "node_name": "node-1",
            "link_type": 1,
            "original_length": len(frame) + 5,
            "frame": frame,
        }
        for frame in (b"one", b"three")
    ]
    assert table["time"].cast(pa.int64()).to_pylist() == [10, 12]
    assert len(follow(batch, streams, np.zeros(0, np.int64))) == 0


def test_chooses_frames_by_index_or_mask():
    batch = batch_of([b"one", b"two", b"three"])
    streams = np.array([1, 2, 3])
    by_index = choose(batch, streams, np.array([0, 2]))
    by_mask = choose(batch, streams, np.array([True, False, True]))
    assert by_index.rows["stream"].tolist() == by_mask.rows["stream"].tolist() == [1, 3]


def test_a_table_is_cut_where_an_arrow_column_would_be_too_long(monkeypatch):
    monkeypatch.setattr("services.capture.packetstore.LONGEST_COLUMN", 10)
    batch = batch_of([b"12345", b"67890", b"a", b"", b"0123456789"])
    packets = choose(batch, np.ones(5, np.int64), np.arange(5))
    table = packets_table(packets, ids, "node-1")
    assert [len(part) for part in table.to_batches()] == [2, 2, 1]
    assert table["frame"].to_pylist() == [b"12345", b"67890", b"a", b"", b"0123456789"]


def test_an_empty_table_has_the_schema():
    batch = batch_of([])
    table = packets_table(choose(batch, np.zeros(0, np.int64), np.arange(0)), ids, "node-1")
    assert table.schema == schema.PACKETS
    assert len(table) == 0


def test_a_store_on_disk_keeps_the_same_as_one_in_memory(tmp_path):
    kept = []
    for folder in (None, tmp_path):
        store = PacketStore(100 * CELL, 4, folder)
        for number in range(40):
            store.put(
                batch_of([bytes([number]) * (number * 3)], number), np.array([number % 3 + 1])
            )
        kept.append((frames_of(store, 1, 2, 3), store.losses(1), store.stored_packets))
    assert kept[0] == kept[1]
    assert list(tmp_path.iterdir()) == []


def test_a_disk_without_room_is_told_at_once(tmp_path):
    with pytest.raises(CaptureError, match=r"cannot keep packets in a file of .* MiB in"):
        PacketStore(1 << 50, 4, tmp_path)
    with pytest.raises(CaptureError, match="No such file or directory"):
        PacketStore(10_000, 4, tmp_path / "missing")
