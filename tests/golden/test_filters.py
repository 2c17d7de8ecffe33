"""What people ask of golden captures is the same by Filter.matches, which says what it means, by
the columns that capture has, and by the SQL that asks recordings.

Filters are made of what the entries hold: a sample, another one each day by FILTERS_SEED.
"""

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pyarrow as pa
import pytest

import kfl
from recordings import segments
from recordings.entry import objects
from recordings.schema import ENTRIES
from services.capture import dissect
from services.capture.frames import open_capture
from services.capture.pipeline import Pipeline, PipelineOptions
from services.query import answer, plan
from services.query.engine import Engine

CAPTURES = sorted((Path(__file__).parent / "captures").glob("*.pcap"))
SIDES = ("request", "response", "error", "protocol")
SEED = os.environ.get("FILTERS_SEED", "1")
FILTERS = 24
"""Of each capture; all of them are some thousands."""
LONGEST = 60
"""Characters of a text that is asked for."""
BODY_LIMIT = 1 << 16


def leaves(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Yield what an entry has, and how a filter names it."""
    if isinstance(value, dict):
        for key, each in value.items():
            if re.fullmatch(r"[A-Za-z_]\w*", key):
                yield from leaves(each, f"{path}.{key}")
            elif path.endswith("headers"):
                yield from leaves(each, f"{path}[{json.dumps(key)}]")
    elif isinstance(value, str):
        if len(value) <= LONGEST and value.isprintable():
            yield path, value
    elif isinstance(value, int | float):
        yield path, value


def filters(entries: list[dict[str, Any]]) -> list[str]:
    """Return what can be asked of the leaves of entries, two values of each."""
    found: dict[str, list[Any]] = {}
    for entry in entries:
        for side in SIDES:
            for path, value in leaves(entry.get(side), side):
                values = found.setdefault(path, [])
                if value not in values and len(values) < 2:
                    values.append(value)
    made = []
    for path, values in sorted(found.items()):
        for value in values:
            made += [f"{path} == {json.dumps(value)}", f"not ({path} == {json.dumps(value)})"]
            if isinstance(value, str) and len(value) > 3:
                made.append(f"{path}.contains({json.dumps(value[1:-1])})")
            elif not isinstance(value, str | bool):
                made.append(f"{path} > {value - 1}")
    return made


def by_columns(path: Path, chosen: list[kfl.Filter]) -> tuple[list[pa.Table], list[int]]:
    """Return all entries, and how many each filter lets through, as `recorder dissect` does it."""
    pipeline = Pipeline(PipelineOptions(body_limit=BODY_LIMIT))
    tables, counts = [], [0] * len(chosen)
    source = open_capture(path)
    try:
        for calls in dissect._calls(source.batches(), pipeline):
            tables.append(calls.entries(dissect._rows(calls, None)))
            for number, each in enumerate(chosen):
                counts[number] += len(dissect._rows(calls, each))
    finally:
        source.close()
    return tables, counts


@pytest.mark.parametrize("path", CAPTURES, ids=[path.stem for path in CAPTURES])
def test_matches_columns_and_sql_agree(path, tmp_path):
    entries = objects(pa.concat_tables(dissect.tables(path, None, BODY_LIMIT)))
    chance = Random(f"{SEED} {path.name}")
    made = filters(entries)
    texts = chance.sample(made, min(FILTERS, len(made)))
    chosen = [kfl.compile(text) for text in texts]
    wanted = {
        text: sum(map(each.matches, entries)) for text, each in zip(texts, chosen, strict=True)
    }
    tables, counts = by_columns(path, chosen)
    assert dict(zip(texts, counts, strict=True)) == wanted
    assert dict(zip(texts, by_sql(tables, chosen, tmp_path), strict=True)) == wanted


def by_sql(tables: list[pa.Table], chosen: list[kfl.Filter], folder: Path) -> Iterator[int]:
    """Yield how many entries of a recording the query service would answer with."""
    batches = [batch for table in tables for batch in table.cast(ENTRIES).to_batches()]
    segment = segments.write(folder, "entries", batches, 1)
    source = plan.Source("golden", (folder / segment.file,), (), segment.rows)
    engine = Engine(folder.resolve(), memory_limit_bytes=256 << 20, threads=1)
    try:
        with engine.session(600) as session:
            for each in chosen:
                planned = plan.entries(each, [source], ordered=False)
                found = answer.of_plan(session, planned, each, plan.ALWAYS)
                yield sum(table.num_rows for table in found)
    finally:
        engine.close()
