"""Episodes of damaged traffic, each followed by a clean exchange that must be found.

An episode follows from the seed and its number alone. `python -m tests.fuzz` runs many of them by
hand, test_fuzz.py some of them; what fails is made smaller and written to a file (case.py).
"""

from __future__ import annotations

import ctypes
import gc
import random
import resource
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow

from recordings import entry
from services.capture.frames.batch import MOST_OCTETS
from tests.fuzz import damage
from tests.fuzz.frames import FILLINGS, Batch, Piece, pieces_of, rows_of, write_pcap
from tests.fuzz.seeds import Seeds, batches_of
from tests.fuzz.watched import Twins
from tests.unit.capture import talks
from tests.unit.capture.conversation import START, Conversation

FRAMES = 20_000
"""Of an episode: enough to fill the tables, few enough to find what is wrong in it."""
SIZES = (1, 2, 7, 60, 300, 2000)
"""Frames of a batch; one alone is an array that ends with it."""
SIZE_WEIGHTS = (2, 1, 2, 3, 4, 2)
AT_ONCE = 12
"""Conversations that are under way."""
TWINS_SHARE = 0.15
FILE_SHARE = 0.1
CLEAN, CLEAN_SERVER = "203.0.113.201", "203.0.113.202"
CLEAN_PATHS = ("/clean/one", "/clean/two")


@dataclass(frozen=True, slots=True)
class Episode:
    """What an episode is besides its frames."""

    number: int
    most_flows: int
    networks_apart: bool
    has_twin: bool

    def agents(self) -> Twins:
        fillings = FILLINGS if self.has_twin else FILLINGS[1:]
        return Twins(fillings, self.most_flows, self.networks_apart)


@dataclass(slots=True)
class Figures:
    """What came of some episodes."""

    episodes: int = 0
    packets: int = 0
    entries: int = 0
    told: int = 0
    """Packets that could not be read, and why is counted."""
    slowest: tuple[float, int] = (0.0, 0)
    """us of processor time a packet, and in which episode."""
    memory: list[int] = field(default_factory=list)
    """MiB after each episode."""


class FailedError(Exception):
    """An episode in which something was wrong."""

    def __init__(self, episode: Episode, batches: list[Batch], error: BaseException) -> None:
        super().__init__(f"{type(error).__name__}: {error}")
        self.episode, self.batches, self.error = episode, batches, error


def begin(seed: int, number: int) -> tuple[random.Random, Episode]:
    chance = random.Random(f"{seed}/{number}")
    return chance, Episode(
        number,
        chance.choice((64, 256, 4096)),
        chance.random() < 0.7,
        chance.random() < TWINS_SHARE,
    )


def run(seed: int, number: int, seeds: Seeds, current: list[Batch] | None = None) -> Figures:
    """Run an episode; raises FailedError. `current`: gets the batches, for who watches."""
    chance, episode = begin(seed, number)
    taken: list[Batch] = [] if current is None else current
    taken.clear()
    agents = episode.agents()
    made = 0.0
    try:
        source = _of_file(chance, seeds) if chance.random() < FILE_SHARE else _mixed(chance, seeds)
        for batch in source:
            taken.append(batch)
            begun = time.process_time()
            agents.take(batch)
            made += time.process_time() - begun
        clean = clean_exchange(number, taken)
        taken.append(clean)
        agents.take(clean)
        agents.end()
        must_have_found(agents)
    except Exception as error:
        raise FailedError(episode, list(taken), error) from error
    first = agents.agents[0]
    packets, told = first.frames, first.told
    entries = first.receiver.rows["job-0", "entries"]
    cost = 1e6 * made / packets / len(agents.agents)
    del agents, first
    return Figures(1, packets, entries, told, (cost, number), [resident()])


def again(episode: Episode, batches: list[Batch]) -> str:
    """Take these batches, of which the last is clean; return what is wrong, or ""."""
    agents = episode.agents()
    try:
        for batch in batches:
            agents.take(batch)
        agents.end()
        must_have_found(agents)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""


def must_have_found(agents: Twins) -> None:
    """Check that the clean exchange is in what was recorded, once."""
    for each in agents.agents:
        found = [
            call
            for table in each.receiver.entries
            if CLEAN in table["src_ip"].unique().to_pylist()
            for call in entry.objects(table)
            if (call["src"]["ip"], call["dst"]["ip"]) == (CLEAN, CLEAN_SERVER)
        ]
        said = [
            (
                call["request"].get("path"),
                call["response"].get("status"),
                call["response"].get("body"),
            )
            if call["protocol"]["name"] == "http"
            else call
            for call in found
        ]
        assert said == [(path, 200, "abc") for path in CLEAN_PATHS], (
            f"of the clean exchange: {said}"
        )


def clean_exchange(number: int, taken: list[Batch]) -> Batch:
    """Return a conversation on addresses that nobody else has, after all others."""
    talk = Conversation(CLEAN, CLEAN_SERVER, 1024 + number % 60_000).open()
    for path in CLEAN_PATHS:
        talk.client(b"GET %s HTTP/1.1\r\nHost: a\r\n\r\n" % path.encode(), 20)
        talk.server(talks.OK, 33)
    talk.close()
    last = int(taken[-1].rows["timestamp"][-1]) if taken and len(taken[-1].rows) else START
    rows, octets, _ = rows_of(pieces_of(talk.frames), last)
    return Batch(rows, octets)


def resident() -> int:
    """Return MiB of memory that this process needs now; what is free goes back before."""
    gc.collect()  # an engine and its agent refer to each other
    pyarrow.default_memory_pool().release_unused()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's
    if trim is not None:
        trim(0)
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() >> 20


def _mixed(chance: random.Random, seeds: Seeds) -> Iterator[Batch]:
    """Yield batches of several conversations at once."""
    running: list[Iterator[Piece]] = []
    now, left = START, FRAMES
    jumps = chance.random() < 0.3
    while left > 0:
        pieces: list[Piece] = []
        size = min(left, chance.choices(SIZES, SIZE_WEIGHTS)[0])
        octets = 0
        while len(pieces) < size and octets < MOST_OCTETS // 2:
            while len(running) < AT_ONCE:
                running.append(iter(_conversation(chance, seeds)))
            which = chance.randrange(AT_ONCE)
            for _ in range(chance.choice((1, 3, 20))):
                piece = next(running[which], None)
                if piece is None:
                    del running[which]
                    break
                pieces.append(piece)
                octets += len(piece.frame)
        if jumps and chance.random() < 0.1:
            pieces[0].after_ns = chance.choice(damage.JUMPS_NS)
        left -= len(pieces)
        rows, joined, now = rows_of(pieces, now)
        yield Batch(rows, joined)


def _conversation(chance: random.Random, seeds: Seeds) -> list[Piece]:
    pieces = seeds.choose(chance)
    if chance.random() < 0.8:
        pieces = damage.renumbered(chance, pieces)
    return damage.damaged(chance, pieces)


def _of_file(chance: random.Random, seeds: Seeds) -> Iterator[Batch]:
    """Yield the batches of capture files that were damaged themselves."""
    with tempfile.TemporaryDirectory() as folder:
        for number in range(20):
            path = Path(folder) / f"{number}.pcapng"
            if seeds.files and chance.random() < 0.7:
                octets = bytearray(chance.choice(seeds.files).read_bytes()[: 1 << 18])
            else:
                rows, joined, _ = rows_of(_conversation(chance, seeds) or [Piece(b"")], START)
                write_pcap(path, [Batch(rows, joined)])
                octets = bytearray(path.read_bytes())
            for _ in range(chance.randrange(6)):
                if octets:
                    chance.choice(damage.OF_A_FILE)(chance, octets)
            path.write_bytes(octets)
            for batch in batches_of(path):
                if len(batch.frames):
                    compact = Batch(batch.frames.copy(), batch.octets)
                    yield compact.chosen(range(len(batch.frames)))
