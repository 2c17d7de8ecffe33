"""What the crash tests find in a recording's files, by what is in each frame and each path."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import pyarrow.parquet as pq

from recordings import journal, layout, snapshot
from recordings.manifest import Manifest
from recordings.segments import ARRIVAL
from services.query.catalog import Catalog
from services.scheduler.completeness import AGENT_GONE
from tests.crash import roles

Tag = tuple[str, int]
"""Agent and batch."""


def compare(found: set[Tag], acknowledged: set[Tag], where: str) -> None:
    """Fail when something that was acknowledged was not found."""
    missing = sorted(acknowledged - found)
    assert not missing, f"{len(missing)} acknowledged batches are not {where}: {missing[:9]}"


def whole(tags: Counter[tuple[str, int, int, int]]) -> set[Tag]:
    """Return the batches whose rows are all there, once; fails when one is twice or in part."""
    twice = [tag for tag, times in tags.items() if times > 1]
    assert not twice, f"{len(twice)} rows are there twice: {twice[:9]}"
    rows = Counter((agent, batch) for agent, batch, _, _ in tags)
    parts = {tag[:2] for tag in tags if rows[tag[:2]] != tag[3]}
    assert not parts, f"batches are there in part: {sorted(parts)[:9]}"
    return set(rows)


def by_paths(paths: Counter[str]) -> set[Tag]:
    return whole(Counter({_tag(path.encode()): times for path, times in paths.items()}))


def by_snapshot(data: Path, job: str) -> set[Tag]:
    """Return what the query service's catalog sees; entries and packets have to agree."""
    opened = Catalog(data).open(job)
    assert not opened.damage
    found = []
    for table, column in (("packets", "frame"), ("entries", "request_path")):
        source = opened.source(table)
        tables = [pq.read_table(path, columns=[column]) for path in source.files]
        tables += [tail.select([column]) for _, tail in source.tails]
        found.append(whole(_tags(value for t in tables for value in t[column].to_pylist())))
    assert found[0] == found[1]
    return found[0]


def directly(data: Path, job: str) -> set[Tag]:
    """Return what is in the files, read without the snapshot."""
    values: list[bytes] = []
    folder = layout.run(data, job, 1)
    manifest = Manifest.load(folder)
    arrivals: Counter[int] = Counter()
    for segment in manifest.segments:
        if segment.table == "packets":
            rows = pq.read_table(folder / segment.file)
            assert rows.num_rows == segment.rows
            values += rows["frame"].to_pylist()
            if ARRIVAL in rows.column_names:
                arrivals.update(rows[ARRIVAL].to_pylist())
    assert max(arrivals.values(), default=1) == 1
    for number in layout.journals(folder):
        if number >= manifest.journal:
            for record in journal.scan(layout.journal(folder, number)).records:
                for part in record.parts:
                    if part.table == "packets":
                        for rows in part.batches():
                            values += rows["frame"].to_pylist()
    return whole(_tags(values))


def dropped(data: Path, job: str) -> Counter[str]:
    """Return how many packets agents had to drop, by node, as the ledger says."""
    found: Counter[str] = Counter()
    for row in snapshot.open(data, job).rows_after("losses", {}).to_pylist():
        if row["kind"] == "uplink_overrun":
            found[row["node_name"]] += row["packets"]
    return found


def gone(data: Path, job: str) -> set[str]:
    """Return the nodes of whose agents the ledger says that they did not deliver all."""
    rows = snapshot.open(data, job).rows_after("losses", {})
    told = zip(rows["kind"].to_pylist(), rows["node_name"].to_pylist(), strict=True)
    return {node for kind, node in told if kind == AGENT_GONE}


def unlisted(data: Path, job: str) -> list[str]:
    """Return the files of a run that is all in segments that no manifest needs."""
    folder = layout.run(data, job, 1)
    manifest = Manifest.load(folder)
    listed = {segment.file for segment in manifest.segments} | {layout.MANIFEST}
    return sorted({path.name for path in folder.iterdir()} ^ listed)


def _tags(values: Iterable[object]) -> Counter[tuple[str, int, int, int]]:
    return Counter(_tag(v.encode() if isinstance(v, str) else v) for v in values)


def _tag(value: bytes) -> tuple[str, int, int, int]:
    match = roles.TAG.match(value)
    assert match, f"this is not what an agent sent: {value[:80]!r}"
    agent, *numbers = match.groups()
    return (agent.decode(), *map(int, numbers))
