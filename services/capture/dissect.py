"""A capture file to entries, in one process and without services. `recorder dissect` calls it."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from kfl.batch import Batch
from recordings.entry import objects
from services.capture.calls import Calls, matching_rows
from services.capture.frames import open_capture
from services.capture.frames.batch import FrameBatch, FrameSource, Loss
from services.capture.pipeline import Pipeline, PipelineOptions
from services.capture.sampling import ALL_STREAMS

if TYPE_CHECKING:
    from kfl import Filter

NODE = "file"
"""The node's name in entries of a capture file."""


def tables(
    path: str | Path, chosen: Filter | None, body_limit: int, sample: float = ALL_STREAMS
) -> Generator[pa.Table, None, list[Loss]]:
    """Yield the entries of a capture file that match, with schema ENTRIES; return what was lost.

    Entries come in the order in which they ended. sample: percent of the streams that are looked
    at. Raises CaptureError when it is no capture.
    """
    pipeline = Pipeline(PipelineOptions(node_name=NODE, body_limit=body_limit, sample=sample))
    left = chosen.limit if chosen and chosen.limit is not None else None
    source = open_capture(path)
    try:
        for calls in _calls(source.batches(), pipeline):
            table = calls.entries(_rows(calls, chosen))
            if left is not None:
                table = table.slice(0, left)
                left -= table.num_rows
            if table.num_rows:
                yield table
            if left == 0:
                break
        return _losses(source, pipeline)
    finally:
        source.close()


def count(
    path: str | Path, chosen: Filter | None, body_limit: int, sample: float = ALL_STREAMS
) -> tuple[dict[str, int], list[Loss]]:
    """Count the entries of a capture file that match, by protocol name; and say what was lost.

    Bodies are kept only for a filter, which may ask for them. sample: as in tables(). Raises
    CaptureError when it is no capture.
    """
    limit = 0 if chosen is None else body_limit
    pipeline = Pipeline(PipelineOptions(node_name=NODE, body_limit=limit, sample=sample))
    counts: dict[str, int] = {}
    source = open_capture(path)
    try:
        for calls in _calls(source.batches(), pipeline):
            found = len(calls) if chosen is None else len(_rows(calls, chosen))
            if found:
                counts[calls.protocol] = counts.get(calls.protocol, 0) + found
        return counts, _losses(source, pipeline)
    finally:
        source.close()


def _calls(batches: Iterator[FrameBatch], pipeline: Pipeline) -> Iterator[Calls]:
    for batch in batches:
        yield from pipeline.take(batch)
    yield from pipeline.end()


def _losses(source: FrameSource, pipeline: Pipeline) -> list[Loss]:
    left_out = pipeline.left_out()
    return source.losses() + pipeline.losses() + ([left_out] if left_out else [])


def _rows(calls: Calls, chosen: Filter | None) -> np.ndarray:
    if chosen is None:
        return np.arange(len(calls))
    return matching_rows(
        chosen,
        Batch(calls.columns(), len(calls)),
        np.bool_(True),
        lambda rows: objects(calls.entries(rows)),
    )
