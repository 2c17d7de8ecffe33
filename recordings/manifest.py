"""The manifest of a run: what of it is stored as segments, and where its journal begins.

The scheduler publishes it by rename, so that a reader sees the one before or this one, never half.
Whatever it says is checked when it is loaded, file names first: they become paths.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import orjson

from recordings import layout, names
from recordings.ledger import Ledger
from recordings.schema import TABLES
from recordings.schema import VERSION as SCHEMA_VERSION
from recordings.segments import Segment

FORMAT: Final = 3
"""Version of this file's form. Since 2 there are merged segments, and the checksum is required.
Since 3 segments may live elsewhere; a manifest without any is still written as version 2."""
LONGEST: Final = 64 << 20
"""Octets; a run of a day with a segment of each table a second has about a third."""


_OPEN: Final = "0" * 64
"""What stands for the digits of the file's own SHA-256 while that is computed."""


class ManifestError(ValueError):
    """A manifest cannot be used; the text is a sentence that says why."""


@dataclass(frozen=True, slots=True)
class AgentMark:
    """How far one agent has come."""

    last: int
    """Number of its last batch in the run's segments."""
    settled: int
    """All its batches up to this number, of all runs, were on disk or refused."""


@dataclass(frozen=True, slots=True)
class Retired:
    """A segment whose rows are in a merged one: readers of an earlier manifest may still need it.

    It is removed after a while, and may be gone already.
    """

    file: str
    bytes: int
    since_ns: int
    """When it was merged, since 1970."""


def _none() -> Mapping[str, Any]:
    return MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a run has stored."""

    job: str
    run: int
    kfl: str = ""
    segments: tuple[Segment, ...] = ()
    """In the order of arrival."""
    journal: int = 1
    """Number of the first journal file whose rows are not in segments."""
    agents: Mapping[str, AgentMark] = field(default_factory=_none)
    nodes: tuple[str, ...] = ()
    """Nodes that have sent data, sorted."""
    counts: Mapping[str, int] = field(default_factory=_none)
    """Rows in segments, by table; a table may be missing."""
    lost_packets: int = 0
    """Sum over the losses in segments."""
    retired: tuple[Retired, ...] = ()
    ledger: Ledger = field(default_factory=Ledger)
    """Sums over what is in segments. Not to be changed."""
    id: str = ""
    """Of this run alone, chosen when it was begun: another job may have its name later. Runs of
    older releases have none."""
    storage: str = ""
    """URL, without options, of the place of those segments that live elsewhere."""

    @classmethod
    def load(cls, folder: Path) -> "Manifest":
        """Load a run's manifest; FileNotFoundError, or ManifestError when it is damaged."""
        return cls.parse(read_octets(folder), folder / layout.MANIFEST)

    @classmethod
    def parse(cls, octets: bytes, path: Path) -> "Manifest":
        """Return the manifest that a file holds; ManifestError says where it is wrong."""
        try:
            found = json.loads(octets)
            _require(isinstance(found, dict), "it is not an object")
            for key, known in (("format", FORMAT), ("schema", SCHEMA_VERSION)):
                version = _count(found, key)
                _require(
                    version <= known,
                    f"its {key} is version {version}, and only versions up to {known} are known; "
                    "use the release that wrote it, or a later one",
                )
            if found["format"] > 1 or "sha256" in found:
                _check_seal(octets, _text(found, "sha256"))
            return cls(
                job=names.check(_text(found, "job")),
                run=_count(found, "run"),
                kfl=_text(found, "kfl"),
                segments=tuple(_segment(item) for item in _list(found, "segments")),
                journal=_count(found, "journal"),
                agents={k: _agent(v) for k, v in _object(found, "agents").items()},
                nodes=tuple(str(node) for node in _list(found, "nodes")),
                counts={k: _count(found["counts"], k) for k in _object(found, "counts")},
                lost_packets=_count(found, "lost_packets"),
                retired=tuple(
                    _retired(item) for item in _list({"retired": [], **found}, "retired")
                ),
                ledger=_ledger(found),
                id=_text({"id": "", **found}, "id"),
                storage=_text({"storage": "", **found}, "storage"),
            )
        except RecursionError:
            raise ManifestError(f"{path} cannot be used: it is nested too deeply.") from None
        except (ValueError, KeyError) as error:
            why = f"it has no {error}" if isinstance(error, KeyError) else str(error)
            raise ManifestError(f"{path} cannot be used: {why}.") from None

    def encode(self) -> bytes:
        """Return the octets of the file, JSON in UTF-8.

        It ends with its own SHA-256, which was computed with zeros in place of its digits.
        """
        found = {
            "format": FORMAT if self.storage else 2,
            "schema": SCHEMA_VERSION,
            "job": self.job,
            "run": self.run,
            "id": self.id,
            "kfl": self.kfl,
            "journal": self.journal,
            "counts": {table: self.counts.get(table, 0) for table in TABLES},
            "lost_packets": self.lost_packets,
            "nodes": list(self.nodes),
            "agents": {
                name: {"last": mark.last, "settled": mark.settled}
                for name, mark in self.agents.items()
            },
            "segments": [
                {
                    "table": segment.table,
                    "file": segment.file,
                    "rows": segment.rows,
                    "bytes": segment.bytes,
                    "min_time_ns": segment.min_time_ns,
                    "max_time_ns": segment.max_time_ns,
                    "sha256": segment.sha256,
                    **({"is_remote": True} if segment.is_remote else {}),
                }
                for segment in self.segments
            ],
            "retired": [
                {"file": gone.file, "bytes": gone.bytes, "since_ns": gone.since_ns}
                for gone in self.retired
            ],
            **({"storage": self.storage} if self.storage else {}),
            "ledger": self.ledger.encode(),
            "sha256": _OPEN,
        }
        # A named tuple is not known to it.
        octets = orjson.dumps(found, default=list, option=orjson.OPT_INDENT_2)
        before, _, after = octets.rpartition(_OPEN.encode())
        return before + hashlib.sha256(octets).hexdigest().encode() + after

    def save(self, folder: Path) -> int:
        """Publish the manifest and return its octets; OSError leaves the old one."""
        path = folder / layout.MANIFEST
        temporary = layout.temporary(path)
        octets = self.encode()
        try:
            with temporary.open("wb") as file:
                file.write(octets)
                file.flush()
                os.fsync(file.fileno())
            temporary.rename(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        layout.sync(folder)
        return len(octets)


def read_octets(folder: Path) -> bytes:
    """Return a run's manifest as it is on disk; FileNotFoundError, ManifestError if it is huge."""
    path = folder / layout.MANIFEST
    with path.open("rb") as file:
        octets = file.read(LONGEST + 1)
    if len(octets) > LONGEST:
        raise ManifestError(f"{path} cannot be used: it has more than {LONGEST} octets.")
    return octets


def _check_seal(octets: bytes, digest: str) -> None:
    before, _, after = octets.rpartition(digest.encode())
    actual = hashlib.sha256(before + _OPEN.encode() + after).hexdigest()
    _require(
        actual == digest,
        f"it says that its SHA-256 is {digest[:80]!a}, but it is {actual!a}: it was damaged, or "
        "changed by hand",
    )


def _segment(found: Any) -> Segment:
    _require(isinstance(found, dict), "a segment is not an object")
    file = _text(found, "file")
    table = _text(found, "table")
    _require(
        layout.is_segment(file) and file.startswith(f"{table}-"),
        f"{file[:80]!a} cannot be the file of a segment of {table[:80]!a}",
    )
    return Segment(
        table=table,
        file=file,
        rows=_count(found, "rows"),
        bytes=_count(found, "bytes"),
        min_time_ns=_integer(found, "min_time_ns"),
        max_time_ns=_integer(found, "max_time_ns"),
        sha256=_text(found, "sha256"),
        is_remote=found.get("is_remote") is True,
    )


def _retired(found: Any) -> Retired:
    _require(isinstance(found, dict), "a retired segment is not an object")
    file = _text(found, "file")
    _require(layout.is_segment(file), f"{file[:80]!a} cannot be the file of a segment")
    return Retired(file, _count(found, "bytes"), _integer(found, "since_ns"))


def _ledger(found: dict[str, Any]) -> Ledger:
    """Return the sums; a manifest of an older release, and with rows, has none."""
    if "ledger" not in found and not any(found["counts"].values()):
        return Ledger()
    return Ledger.decode(found.get("ledger"))


def _agent(found: Any) -> AgentMark:
    _require(isinstance(found, dict), "an agent is not an object")
    return AgentMark(_count(found, "last"), _count(found, "settled"))


def _integer(found: dict[str, Any], key: str) -> int:
    value = found[key]
    _require(type(value) is int, f"{key} is not an integer")
    return int(value)


def _count(found: dict[str, Any], key: str) -> int:
    value = _integer(found, key)
    _require(value >= 0, f"{key} is negative")
    return value


def _text(found: dict[str, Any], key: str) -> str:
    value = found[key]
    _require(isinstance(value, str), f"{key} is not a text")
    return str(value)


def _list(found: dict[str, Any], key: str) -> list[Any]:
    value = found[key]
    _require(isinstance(value, list), f"{key} is not a list")
    return list(value)


def _object(found: dict[str, Any], key: str) -> dict[str, Any]:
    value = found[key]
    _require(isinstance(value, dict), f"{key} is not an object")
    return dict(value)


def _require(holds: bool, otherwise: str) -> None:
    if not holds:
        raise ValueError(otherwise)
