"""The entries that match, with the columns that a question needs. Called by figures_rpc.

Where SQL says exactly what the filter means, they are a SELECT, and the question goes on from it.
Otherwise, and where redact() has a say, each row that SQL lets through is looked at, and those that
match become a small table of these columns.
"""

# ruff: noqa: S608 - the only text put into SQL is names from the schema and from this room.

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from kfl import Filter
from kfl.sql.pieces import TRUE, Piece
from recordings import entry, schema
from recordings.redaction import Redactions
from services.query import answer, plan
from services.query.engine import Question, Session
from services.query.plan import Source, Window

MAX_LOOKED_AT = 200_000
"""Entries that are looked at one by one for one question: some ten seconds of work."""

MAX_HELD_BYTES = 256 << 20
"""Octets of their columns that are held: a body can be such a column."""

TABLE = "matched"

Rows = Sequence[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Column:
    """A column of the answer, in SQL over ENTRIES and `record`, and of rows with their objects."""

    name: str
    type: pa.DataType
    piece: Piece | None
    """None where SQL cannot say it."""
    of: Callable[[pa.Table, Rows], pa.Array]
    sure: Piece = TRUE
    """Rows for which the piece is right."""


def stored(name: str) -> Column:
    """Return a column of ENTRIES."""
    return Column(
        name,
        schema.ENTRIES.field(name).type,
        Piece(f'"{name}"'),
        lambda table, _: table[name].combine_chunks(),
    )


@dataclass(frozen=True, slots=True)
class Matched:
    """What was found: `question` is a SELECT of the columns, without order."""

    question: Question
    is_table: bool = False
    """The columns are of rows that were looked at, and not SQL's own."""
    notes: tuple[str, ...] = ()

    def then(self, sql: str, *values: object) -> Question:
        """Return a question about the rows: in `sql`, {} stands for them.

        `values` are those of the text before them.
        """
        return Question(
            sql.replace("{}", f"({self.question.sql}) AS matched_rows", 1),
            [*values, *self.question.parameters],
            self.question.tables,
        )


def matched(
    session: Session,
    filter: Filter,
    sources: Sequence[Source],
    window: Window,
    columns: Sequence[Column],
) -> Matched:
    """Find the entries that match. Raises EngineError."""
    pieces = [column.piece for column in columns]
    if (
        not filter.redactions
        and None not in pieces
        and _are_sure(session, filter, sources, window, columns)
    ):
        chosen = [(piece, column.name) for piece, column in zip(pieces, columns, strict=True)]
        text = ", ".join(f'{piece.text} AS "{name}"' for piece, name in chosen if piece)
        values = [value for piece, _ in chosen if piece for value in piece.parameters]
        question = plan.relation(filter, sources, window, text, values)
        if question is not None:
            return Matched(question)
    return _looked_at(session, filter, sources, window, columns)


def _are_sure(
    session: Session,
    filter: Filter,
    sources: Sequence[Source],
    window: Window,
    columns: Sequence[Column],
) -> bool:
    """Tell whether the columns are right in all rows that match."""
    doubts = [column.sure for column in columns if column.sure != TRUE]
    if not doubts:
        return True
    text = " AND ".join(f"({doubt.text})" for doubt in doubts)
    values = [value for doubt in doubts for value in doubt.parameters]
    question = plan.relation(filter, sources, window, f"{text} AS sure", values)
    if question is None:
        return False
    asked = Matched(question).then("SELECT count(*) FROM {} WHERE sure IS DISTINCT FROM TRUE")
    return not any(batch.column(0)[0].as_py() for batch in session.rows(asked))


def _looked_at(
    session: Session,
    filter: Filter,
    sources: Sequence[Source],
    window: Window,
    columns: Sequence[Column],
) -> Matched:
    planned = plan.entries(filter, sources, window=window, ordered=False)
    redactions = Redactions(filter.redactions)
    kinds = pa.schema([pa.field(column.name, column.type) for column in columns])
    parts = [kinds.empty_table()]
    room = MAX_LOOKED_AT
    for rows in answer.rows(session, planned):
        table = rows.slice(0, room)
        with session.working():
            found = answer.matching(table, filter, window)
            found = redactions.apply_to_table(found)
            objects = entry.objects(found)
            arrays = [column.of(found, objects) for column in columns]
            parts.append(pa.table(arrays, schema=kinds))
        room -= table.num_rows
        held = sum(part.nbytes for part in parts)
        if table.num_rows < rows.num_rows or held > MAX_HELD_BYTES:
            return _of(parts, _too_many(MAX_LOOKED_AT - room, sources))
    return _of(parts)


def _of(parts: Sequence[pa.Table], *notes: str) -> Matched:
    question = Question(f"SELECT * FROM {TABLE}", [], {TABLE: pa.concat_tables(parts)})
    return Matched(question, True, notes)


def _too_many(looked_at: int, sources: Sequence[Source]) -> str:
    return (
        f"Not all is counted: SQL cannot decide this statement alone, and {looked_at} entries "
        f"were looked at, of {sum(source.rows for source in sources)}. Ask for a shorter time, or "
        "add a condition on a field with a column."
    )
