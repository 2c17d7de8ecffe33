"""The files of one run and the octets that they may take. The writer calls it.

Two threads work on a run: the writer's appends and rotates the journal; the roller's turns closed
journals into segments and publishes them, and what the compactor has merged. What both look at is
changed under `lock`.
"""

import contextlib
import errno
import os
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq

from recordings import journal, layout, segments
from recordings.journal import SELF, Encoded, Journal, JournalRecord
from recordings.ledger import Ledger
from recordings.ledger import rows as tally_rows
from recordings.manifest import AgentMark, Manifest, Retired
from recordings.schema import LOSSES, TABLES, TALLIES
from recordings.segments import Segment
from services.runtime.logging import logger
from services.scheduler import journalrows
from services.scheduler.batches import NO_ROWS, Checked, Rows, count
from services.scheduler.quota import Budget, Quota, StorageFullError, on_disk

HEADROOM_BYTES: Final = 48 << 10
"""Reserved for each run from its beginning, so that the loss that the storage limit causes can be
written when it is reached: two records, a journal, a segment."""
JOURNAL_OVERHEAD_BYTES: Final = 64 << 10
"""Reserved for each journal: heads and footers of four segments (24 KiB), their lines in the
manifest and its temporary file."""
NEW_AGENT_BYTES: Final = 512
"""The line of an agent and its node in the manifest and in its temporary file."""
FOLDER_ENTRY_BYTES: Final = 64

_log = logger(__name__)


@dataclass(slots=True)
class Tail:
    """A journal that has not become segments yet."""

    number: int
    size: int = 0
    rows: Rows = NO_ROWS
    ledger: Ledger = field(default_factory=Ledger)
    segment_bytes: int = 0
    """Octets that its segments take at most."""
    since: float = 0.0
    """When it was begun, by the clock's monotonic()."""
    tried: float | None = None
    """When it was last tried to make segments of it, and could not be."""


class RunFiles:
    """One run on disk. Made by `create` or `load`."""

    def __init__(self, folder: Path, quota: Quota, manifest: Manifest, size: int) -> None:
        """`size` is that of the manifest in octets."""
        self.folder = folder
        self.job, self.run = manifest.job, manifest.run
        self.lock = threading.Lock()
        self.manifest = manifest
        self.tails: list[Tail] = []
        """Oldest first; the last one is being written when `journal` is there."""
        self.journal: Journal | None = None
        self.last: dict[str, int] = {name: mark.last for name, mark in manifest.agents.items()}
        """Number of each agent's last batch in this run."""
        self.full = ""
        """Why nothing more is taken, as a sentence."""
        self.held = ""
        """Why what comes has to wait, as a sentence."""
        self.held_ns = 0
        """Since when, in ns since 1970."""
        self.owed: list[dict[str, pa.RecordBatch]] = []
        """Losses that could not be written when they happened, and counts; by table."""
        self.is_deleted = False
        self.is_open = False
        """Set by the writer. A run that is not open is shelved when it is all segments."""
        self.found: dict[str, tuple[int, set[int]]] = {}
        """What load() found of each agent: up to where it is settled, and numbers in journals."""
        self.nodes = set(manifest.nodes)
        self.here_bytes = 0
        """Octets of the segments that live on disk."""
        self._quota = quota
        self._measure(manifest, size)
        self._is_shelved = False
        self._is_torn = False  # a sync has failed: nobody knows what of the journal is on disk
        self._safe: Tail | None = None  # the journal at its last sync, when more was appended since
        self._last_safe: dict[str, int] = {}  # of agents that have appended since
        self._next = manifest.journal
        self._held = 0

    @classmethod
    def create(cls, folder: Path, quota: Quota, manifest: Manifest) -> "RunFiles":
        """Make the folder and manifest of a new run; StorageFullError, or another OSError."""
        run = cls(folder, quota, manifest, len(manifest.encode()))
        run._reserve()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            manifest.save(folder)
            for parent in (folder.parent, folder.parent.parent):
                layout.sync(parent)
        except OSError:
            quota.release(run._held)
            with contextlib.suppress(OSError):  # else it would look like a run that was damaged
                folder.rmdir()
            raise
        return run

    @classmethod
    def load(cls, folder: Path, quota: Quota) -> "RunFiles":
        """Take up a run as a stopped or killed writer left it.

        Sweeps what was not published, cuts off what was not acknowledged. Raises OSError, and
        ValueError when the manifest is damaged or a later release wrote it: nothing is changed
        then.
        """
        manifest = Manifest.load(folder)
        numbers = layout.journals(folder)
        for number in numbers:
            journal.read(layout.journal(folder, number), limit=1)  # raises for a later version
        run = cls(folder, quota, manifest, (folder / layout.MANIFEST).stat().st_size)
        here = {segment.file for segment in manifest.segments if not segment.is_remote}
        run._sweep({*here, *(retired.file for retired in manifest.retired)})
        for number in layout.journals(folder):
            run._take_up(number, journal.scan(layout.journal(folder, number)))
        run._next = max([manifest.journal, *(tail.number + 1 for tail in run.tails)])
        run._held = run._needed()
        quota.adopt(run._held)
        return run

    # ---- the writer's thread

    def append(self, batch: Checked, agent: str, node: str, settled: int, now: float) -> None:
        """Append a batch, not yet safe. StorageFullError leaves all as it was; so does OSError."""
        extra = batch.segment_bytes
        if agent not in self.last:
            extra += NEW_AGENT_BYTES
        self._reserve(batch.record.size, extra, is_new=self.journal is None)
        self._append(batch.record, settled, batch.rows, batch.ledger, extra, now)
        self._last_safe.setdefault(agent, self.last.get(agent, 0))
        self.last[agent] = batch.sequence
        self.nodes.add(node)

    def append_losses(
        self,
        kind: str,
        losses: Sequence[dict[str, object]],
        now: float,
        counted: Ledger | None = None,
    ) -> None:
        """Append rows of LOSSES out of the headroom, synced; kept for later when that fails.

        With them what agents have counted, when they told it in what was not stored.
        """
        blank = {"kind": kind, "node_name": "", "packets": 0, "bytes": 0, "stream": None}
        rows = pa.RecordBatch.from_pylist([{**blank, **loss} for loss in losses], schema=LOSSES)
        told = tally_rows(counted.tallies.values()) if counted else []
        tallies = pa.RecordBatch.from_pylist(told, schema=TALLIES)
        self._append_owed({"losses": rows, "tallies": tallies}, now)

    def pay_owed(self, now: float) -> None:
        """Append the losses that could not be written before."""
        owed, self.owed = self.owed, []
        for batches in owed:
            self._append_owed(batches, now)

    def _append_owed(self, batches: dict[str, pa.RecordBatch], now: float) -> None:
        parts, ledger = [], Ledger()
        for table, rows in batches.items():
            if rows.num_rows:
                sink = pa.BufferOutputStream()
                with pa.ipc.new_stream(sink, rows.schema) as stream:
                    stream.write_batch(rows)
                parts.append(journal.Part(table, rows.num_rows, sink.getvalue().to_pybytes()))
                ledger.add(table, [rows], "")
        sequence = self.last.get(SELF, 0) + 1
        counted = count("losses", [batches["losses"]])
        try:
            record = journal.encode(SELF, "", sequence, parts)
            self._append(record, 0, counted, ledger, 0, now)
            self._last_safe.setdefault(SELF, sequence - 1)
            self.last[SELF] = sequence
            self.sync()
        except OSError as error:
            _log.error("loss not written", job=self.job, run=self.run, error=str(error))
            if self._is_torn:
                self.take_back()
            self.owed.append(batches)

    def sync(self) -> None:
        """Make what was appended safe; raises OSError, and then take_back() has to follow."""
        if self.journal and self.journal.synced < self.journal.size:
            self._is_torn = True
            self.journal.sync()
            self._is_torn = False
        self._safe = None
        self._last_safe.clear()

    def take_back(self) -> bool:
        """Remove what was appended since the last sync, so that it can be appended again.

        False when the disk refuses that, too: the journal gets no more until it does not.
        """
        if self.journal is None or self._safe is None:
            return True
        self.last.update(self._last_safe)  # in any case: what comes again has to be appended
        try:
            self.journal.take_back()
        except OSError as error:
            _log.error("journal not cut back", job=self.job, run=self.run, error=str(error))
            return False
        with self.lock:
            self.tails[-1] = self._safe
            self._settle(0)
        self._last_safe.clear()
        self._safe, self._is_torn = None, False
        return True

    def rotate(self) -> None:
        """Close the journal, so that it can become segments; the next batch begins another.

        One that could not be cut back stays as it is, and is tried again.
        """
        if self.journal and (not self._is_torn or self.take_back()):
            self.journal.close()
            self.journal = None
            self._safe = None
            self._last_safe.clear()

    def _append(
        self, record: Encoded, settled: int, rows: Rows, ledger: Ledger, bound: int, now: float
    ) -> None:
        if self._is_torn and not self.take_back():
            raise OSError(errno.EROFS, "The journal could not be cut back", str(self.folder))
        if self.journal is None:
            self.journal = Journal(self.folder, self._next)
            with self.lock:
                self.tails.append(Tail(self._next, journal.FILE_HEAD, since=now))
            self._next += 1
        size = self.journal.append_encoded(record, settled)
        with self.lock:
            tail = self.tails[-1]
            if self._safe is None:
                self._safe = replace(tail, ledger=tail.ledger.copy())
            tail.size += size
            tail.rows = tail.rows.plus(rows)
            tail.ledger.merge(ledger)
            tail.segment_bytes += bound

    # ---- the roller's thread

    def closed(self) -> list[Tail]:
        """Return the journals that can become segments, oldest first."""
        with self.lock:
            return self.tails[:-1] if self.journal else list(self.tails)

    def roll(self, tail: Tail, settled: Callable[[str], int], time_ns: int) -> None:
        """Turn the oldest closed journal into segments and publish them.

        `settled` tells how far an agent has come, `time_ns` is now. Raises OSError and
        pa.ArrowException; the journal stays then, and can be read and tried again.
        """
        path = layout.journal(self.folder, tail.number)
        scan = journal.scan(path)
        batches = journalrows.by_table(scan.records)
        ledger = self.manifest.ledger.copy()
        for record in scan.records:
            journalrows.count(record, ledger)
        made = [owed["losses"] for owed in self.owed]
        made += journalrows.damage(path, scan, batches, time_ns)
        ledger.add("losses", made, "")
        ledger.add("tallies", [owed["tallies"] for owed in self.owed], "")
        batches["losses"] += made
        owed = len(self.owed)
        budget = Budget(self._quota, tail.segment_bytes + JOURNAL_OVERHEAD_BYTES)
        written: list[Segment] = []
        try:
            for table, rows in batches.items():
                if any(batch.num_rows for batch in rows):
                    written.append(
                        segments.write(self.folder, table, rows, tail.number, budget.allow)
                    )
            fresh = self._after(tail, scan.records, written, batches["losses"], settled)
            fresh = replace(fresh, ledger=ledger)
            size = fresh.save(self.folder)
        except BaseException:
            for segment in written:
                (self.folder / segment.file).unlink(missing_ok=True)
            self._quota.release(budget.extra)
            raise
        with self.lock:
            self.manifest = fresh
            self._measure(fresh, size)
            self.tails.remove(tail)
            del self.owed[:owed]
        path.unlink(missing_ok=True)
        with self.lock:
            self._settle(budget.extra)

    def publish_merged(
        self, old: Sequence[Segment], merged: Segment, reserved: int, time_ns: int
    ) -> None:
        """Publish a segment that has the rows of `old`, which readers may need for a while yet.

        `reserved` are its octets in the quota. Raises OSError and ValueError, and changes nothing
        then.
        """
        if self.is_deleted:
            raise FileNotFoundError(f"{self.folder} was deleted")
        current = self.whole()
        gone = set(old)
        if not gone <= set(current.segments):  # it was dropped, or lives elsewhere by now
            raise ValueError(f"{self.folder} does not list what was merged any more")
        kept = [segment for segment in current.segments if segment not in gone]
        # In the order of arrival; only the order within a table has a meaning.
        kept.insert(current.segments.index(old[0]), merged)
        retired = (Retired(segment.file, segment.bytes, time_ns) for segment in old)
        self._publish(
            replace(current, segments=tuple(kept), retired=(*current.retired, *retired)), reserved
        )

    def drop_retired(self, before_ns: int | None = None) -> None:
        """Remove segments that were merged before then (None: all). Raises OSError."""
        if self.is_deleted:
            return
        kept = tuple(r for r in self.manifest.retired if not _is_before(r, before_ns))
        for gone in set(self.manifest.retired) - set(kept):
            (self.folder / gone.file).unlink(missing_ok=True)
        # What is gone is not counted any more, also when the manifest cannot be written now.
        fresh = replace(self.whole(), retired=kept)
        with self.lock:
            self.manifest = replace(self.manifest, retired=kept)
            self._measure(fresh, self._manifest_bytes)
            self._settle(0)
        self._publish(fresh, 0)

    def moved(self, files: Collection[str], storage: str, time_ns: int) -> None:
        """Publish that segments live elsewhere now, where they were read back.

        The files here stay for a while for readers of the manifest before, if there is room. Raises
        OSError, ManifestError.
        """
        if self.is_deleted:
            return
        current = self.whole()
        gone = [s for s in current.segments if s.file in files and not s.is_remote]
        if not gone:
            return
        octets = sum(on_disk(segment.bytes) for segment in gone)
        is_room = self._quota.reserve(octets)
        retired = tuple(Retired(s.file, s.bytes, time_ns) for s in gone) if is_room else ()
        kept = (replace(s, is_remote=s.is_remote or s in gone) for s in current.segments)
        fresh = replace(
            current,
            segments=tuple(kept),
            retired=(*current.retired, *retired),
            storage=storage,
        )
        try:
            self._publish(fresh, octets if is_room else 0)
        except BaseException:
            if is_room:
                self._quota.release(octets)
            raise
        if not is_room:
            for segment in gone:
                (self.folder / segment.file).unlink(missing_ok=True)

    def drop(self, gone: Sequence[Segment], counts: Mapping[str, int]) -> None:
        """Remove segments and what they held, for good. Raises OSError, ManifestError."""
        if self.is_deleted:
            return
        files = {segment.file for segment in gone}
        current = self.whole()
        kept = tuple(s for s in current.segments if s.file not in files)
        ledger = self._ledger_without(gone)
        fresh = replace(current, segments=kept, counts=dict(counts), ledger=ledger)
        size = fresh.save(self.folder)
        with self.lock:
            self.manifest = replace(fresh, segments=()) if self._is_shelved else fresh
        for file in files:
            (self.folder / file).unlink(missing_ok=True)
        with self.lock:
            self._measure(fresh, size)
            self._settle(0)

    def _ledger_without(self, gone: Sequence[Segment]) -> Ledger:
        """Return the sums without the packets of segments. Raises OSError, pa.ArrowException."""
        ledger = self.manifest.ledger.copy()
        for segment in gone:
            if segment.table == "packets" and ledger.is_whole:
                columns = ["node_name", "original_length"]
                if segment.is_remote:
                    # To read it would hold up recording for as long as the network takes.
                    ledger.is_whole = False
                    continue
                rows = pq.read_table(self.folder / segment.file, columns=columns, partitioning=None)
                sums = rows.group_by("node_name").aggregate(
                    [([], "count_all"), (columns[1], "sum")]
                )
                for row in sums.to_pylist():
                    ledger.store(row["node_name"], -row["count_all"], -row["original_length_sum"])
        return ledger

    def _publish(self, fresh: Manifest, reserved: int) -> None:
        size = fresh.save(self.folder)
        with self.lock:
            self.manifest = replace(fresh, segments=()) if self._is_shelved else fresh
            self._measure(fresh, size)
            self._settle(reserved)

    def _after(
        self,
        tail: Tail,
        records: list[JournalRecord],
        written: list[Segment],
        losses: list[pa.RecordBatch],
        settled: Callable[[str], int],
    ) -> Manifest:
        """Return the manifest that lists a journal's segments."""
        old = self.manifest
        agents = dict(old.agents)
        for record in records:
            before = agents.get(record.agent, AgentMark(0, 0))
            agents[record.agent] = AgentMark(max(before.last, record.sequence), before.settled)
        for name, mark in agents.items():
            if name != SELF:
                agents[name] = AgentMark(mark.last, max(mark.settled, settled(name)))
        counts = {table: old.counts.get(table, 0) for table in TABLES}
        for segment in written:
            counts[segment.table] += segment.rows
        return replace(
            old,
            segments=old.segments + tuple(written),
            journal=tail.number + 1,
            agents=agents,
            nodes=tuple(sorted({*old.nodes, *(r.node for r in records if r.node)})),
            counts=counts,
            lost_packets=old.lost_packets + sum(map(journalrows.lost, losses)),
        )

    def shelve(self) -> None:
        """Drop the list of segments from memory, when the run has ended and has no journal."""
        with self.lock:
            if not self.is_open and not self.tails:
                self.manifest = replace(self.manifest, segments=())
                self._is_shelved = True

    def reopen(self) -> None:
        """Take the list of segments up again. Raises OSError, ManifestError."""
        with self.lock:
            if self._is_shelved:
                loaded = Manifest.load(self.folder)
                self.manifest = replace(loaded, retired=self.manifest.retired)
                self._is_shelved = False
            self.is_open = True

    def removed(self) -> None:
        """Give back all octets, once the folder is gone."""
        with self.lock:
            self._quota.release(self._held)
            self._held = 0

    # ---- any thread

    @property
    def segments(self) -> int:
        """How many segments there are, those that were merged away included."""
        return self._listed_files

    def has_retired(self, before_ns: int | None = None) -> bool:
        """Tell whether there is something for drop_retired()."""
        return any(_is_before(gone, before_ns) for gone in self.manifest.retired)

    def whole(self) -> Manifest:
        """Return the manifest with all segments. Raises OSError, ManifestError."""
        with self.lock:
            if not self._is_shelved:
                return self.manifest
            return replace(Manifest.load(self.folder), retired=self.manifest.retired)

    def rows(self) -> Rows:
        """Return how much is stored, journals included."""
        with self.lock:
            counts = self.manifest.counts
            rows = Rows(
                **{table: counts.get(table, 0) for table in TABLES},
                lost_packets=self.manifest.lost_packets,
            )
            for tail in self.tails:
                rows = rows.plus(tail.rows)
            return rows

    def ledger(self) -> Ledger:
        """Return what is known of each node, journals included."""
        with self.lock:
            ledger = self.manifest.ledger.copy()
            for tail in self.tails:
                ledger.merge(tail.ledger)
            return ledger

    def bytes(self) -> int:
        """Return the octets of all files."""
        with self.lock:
            journals = sum(tail.size for tail in self.tails)
            return self._segment_bytes + self._manifest_bytes + journals

    def journal_bytes(self) -> int:
        """Return the octets of journals, which would shrink if they became segments."""
        with self.lock:
            return sum(tail.size for tail in self.tails)

    # ---- octets

    def _needed(self, more: int = 0, bound: int = 0, is_new: bool = False) -> int:
        """Return what the run may take on disk, with a record more or without."""
        octets = 0 if self.full else HEADROOM_BYTES
        octets += 2 * on_disk(1) + on_disk(FOLDER_ENTRY_BYTES * self._listed_files)
        octets += 2 * on_disk(self._manifest_bytes) + self._listed_disk
        for tail in self.tails:
            octets += on_disk(tail.size) + tail.segment_bytes + JOURNAL_OVERHEAD_BYTES
        if is_new:
            return octets + on_disk(journal.FILE_HEAD + more) + bound + JOURNAL_OVERHEAD_BYTES
        if more:
            size = self.tails[-1].size
            octets += on_disk(size + more) - on_disk(size) + bound
        return octets

    def _reserve(self, more: int = 0, bound: int = 0, *, is_new: bool = False) -> None:
        with self.lock:
            octets = self._needed(more, bound, is_new) - self._held
            if octets > 0:
                if not self._quota.reserve(octets):
                    raise StorageFullError(self._quota.sentence())
                self._held += octets

    def _settle(self, reserved: int) -> None:
        """Take over what was reserved for files that are there now; give back what is not needed.

        Under `lock`.
        """
        needed = self._needed()
        self._quota.release(self._held + reserved - needed)
        self._held = needed

    def _measure(self, manifest: Manifest, size: int) -> None:
        """Learn what a manifest of `size` octets, and what it lists, take on disk."""
        listed = [s.bytes for s in manifest.segments] + [r.bytes for r in manifest.retired]
        self._manifest_bytes = size
        self._segment_bytes = sum(segment.bytes for segment in manifest.segments)
        self._listed_disk = sum(map(on_disk, listed))
        self._listed_files = len(listed)
        self.here_bytes = sum(s.bytes for s in manifest.segments if not s.is_remote)

    # ---- after a crash

    def _sweep(self, listed: set[str]) -> None:
        """Remove what was being written, and what was not published."""
        with os.scandir(self.folder) as entries:
            names = [entry.name for entry in entries if entry.is_file(follow_symlinks=False)]
        leftover = [
            name
            for name in names
            if name.endswith(layout.TEMPORARY) or (layout.is_segment(name) and name not in listed)
        ]
        for number in layout.journals(self.folder):
            if number < self.manifest.journal:
                leftover.append(layout.journal(self.folder, number).name)
        for name in leftover:
            (self.folder / name).unlink(missing_ok=True)
        if leftover:
            _log.info("leftovers removed", job=self.job, run=self.run, files=len(leftover))

    def _take_up(self, number: int, scan: journal.Scan) -> None:
        """Count what is in a journal; cut off a torn tail, which was never acknowledged."""
        path = layout.journal(self.folder, number)
        size = path.stat().st_size
        if scan.torn and scan.torn.is_torn:
            _log.warning(
                "torn tail cut off",
                job=self.job,
                run=self.run,
                octets=size - scan.end,
                reason=scan.torn.reason,
            )
            os.truncate(path, scan.end)
            size = scan.end
        if not size:
            path.unlink()
            return
        tail = Tail(number, size, segment_bytes=size + size // 8)
        self._count(tail, scan.records)
        self.tails.append(tail)

    def _count(self, tail: Tail, records: list[JournalRecord]) -> None:
        for record in records:
            self.last[record.agent] = max(self.last.get(record.agent, 0), record.sequence)
            settled, sequences = self.found.get(record.agent, (0, set()))
            sequences.add(record.sequence)
            self.found[record.agent] = (max(settled, record.settled), sequences)
            if record.node:
                self.nodes.add(record.node)
            journalrows.count(record, tail.ledger)
            for part in record.parts:
                batches = part.batches()
                tail.rows = tail.rows.plus(count(part.table, batches))
                tail.segment_bytes += max(0, sum(b.nbytes for b in batches) - len(part.octets))


def _is_before(gone: Retired, before_ns: int | None) -> bool:
    return before_ns is None or gone.since_ns < before_ns
