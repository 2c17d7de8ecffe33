"""What will not arrive of each run, until a row of the ledger has told it.

An agent with a spool that is killed forgets neither what it dropped nor that it did: a file beside
the batches has a line of JSON for each thing that happened, written before it happens:

    {"lost": [job, run, …], "serial": 7}   fields of Content; batch 7 of the spool is dropped
    {"tell": [job, run], "serial": 9}      all that was lost of a run will be told in batch 9
    {"told": [job, run]}                   batch 9 is in the spool
    {"gone": [7, 8]}                       batches that were dropped and are still in its files
"""

import contextlib
import json
from collections.abc import Iterable
from dataclasses import astuple, dataclass
from typing import Any

from services.capture.spool import Spool

Run = tuple[str, int]
"""Job and run."""

FILE = "missing"

MOST_LINES = 65_536
"""The file is written anew, with what still counts, when it has this many."""


@dataclass(frozen=True, slots=True)
class Content:
    """What would be missing if some rows were dropped."""

    batches: int = 0
    entries: int = 0
    streams: int = 0
    packets: int = 0
    octets: int = 0  # of the packets, on the wire
    start_ns: int | None = None  # of the oldest row
    end_ns: int | None = None

    def __add__(self, other: "Content") -> "Content":
        starts = [ns for ns in (self.start_ns, other.start_ns) if ns is not None]
        ends = [ns for ns in (self.end_ns, other.end_ns) if ns is not None]
        return Content(
            self.batches + other.batches,
            self.entries + other.entries,
            self.streams + other.streams,
            self.packets + other.packets,
            self.octets + other.octets,
            min(starts, default=None),
            max(ends, default=None),
        )


class Missing:
    """What is missing from each run. Not thread-safe."""

    def __init__(self, spool: Spool | None = None) -> None:
        """`spool` was just opened: what an agent before this one lost is taken up."""
        self.by_run: dict[Run, Content] = {}
        self.gone: set[int] = set()
        """Serials of batches that were dropped, and whose octets are still in the spool's files."""
        self._spool = spool
        self._lines = 0
        if spool is not None:
            self._load({place.serial for place, _ in spool.left})

    def __bool__(self) -> bool:
        return bool(self.by_run)

    def add(self, run: Run, lost: Content, serial: int = 0) -> None:
        """Note that rows of a run will not arrive; `serial` is their batch's in the spool."""
        if lost == Content():
            return
        self._count(run, lost, serial)
        self._write({"lost": [*run, *astuple(lost)], "serial": serial})

    def tell(self, run: Run) -> Content:
        """Return what is missing from a run, for the batch that is put into the spool next."""
        serial = self._spool.next_serial if self._spool else 0
        self._write({"tell": run, "serial": serial})
        return self.by_run.pop(run)

    def told(self, run: Run) -> None:
        """Note that this batch is there."""
        self._write({"told": run})

    def take(self) -> dict[Run, Content]:
        """Return all that is missing; somebody else tells it."""
        taken, self.by_run = self.by_run, {}
        for run in taken:
            self._write({"told": run})
        return taken

    # ------------------------------------------------------------------ the file

    def _count(self, run: Run, lost: Content, serial: int) -> None:
        self.by_run[run] = self.by_run.get(run, Content()) + lost
        if serial:
            self.gone.add(serial)

    def _write(self, line: dict[str, Any]) -> None:
        if self._spool is None:
            return
        self._lines += 1
        if self._lines > MOST_LINES:
            self._write_anew()
            return
        # Memory still knows it when the disk is full.
        with contextlib.suppress(OSError), (self._spool.folder / FILE).open("ab") as file:
            file.write(_encoded(line))

    def _write_anew(self) -> None:
        assert self._spool is not None
        self.gone = {serial for serial in self.gone if serial >= self._spool.first_serial}
        lines: list[dict[str, Any]] = [
            {"lost": [*run, *astuple(lost)], "serial": 0} for run, lost in self.by_run.items()
        ]
        if self.gone:
            lines.append({"gone": sorted(self.gone)})
        file = self._spool.folder / FILE
        beside = file.with_name(f"{FILE}.new")
        with contextlib.suppress(OSError):
            if lines:
                beside.write_bytes(b"".join(map(_encoded, lines)))
                beside.replace(file)
            else:
                file.unlink(missing_ok=True)
            self._lines = len(lines)

    def _load(self, serials: set[int]) -> None:
        assert self._spool is not None
        telling: dict[Run, int] = {}
        with contextlib.suppress(FileNotFoundError):
            for octets in (self._spool.folder / FILE).read_bytes().splitlines():
                with contextlib.suppress(ValueError, TypeError, KeyError):  # torn, or damaged
                    self._replay(json.loads(octets), telling)
        for run, serial in telling.items():  # it was killed just before, or just after
            if serial in serials:
                self.by_run.pop(run, None)
        self.gone &= serials
        self._write_anew()

    def _replay(self, line: dict[str, Any], telling: dict[Run, int]) -> None:
        if "lost" in line:
            job, run, *fields = line["lost"]
            self._count((str(job), int(run)), Content(*fields) + Content(), int(line["serial"]))
        elif "tell" in line:
            telling[_run(line["tell"])] = int(line["serial"])
        elif "told" in line:
            telling.pop(_run(line["told"]), None)
            self.by_run.pop(_run(line["told"]), None)
        else:
            self.gone.update(map(int, line["gone"]))


def _run(found: Iterable[Any]) -> Run:
    job, run = found
    return str(job), int(run)


def _encoded(line: dict[str, Any]) -> bytes:
    return json.dumps(line, separators=(",", ":")).encode() + b"\n"
