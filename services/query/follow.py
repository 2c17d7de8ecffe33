"""What a recording got since one looked last. Called by query_rpc to follow a question."""

from dataclasses import dataclass

import pyarrow as pa

from recordings.snapshot import Snapshot
from services.query.catalog import Catalog, Opened, UnknownRecordingError
from services.query.engine import FilesGoneError
from services.query.live import Live
from services.query.livememory import RECORD
from services.query.plan import Source, Window


@dataclass(frozen=True, slots=True)
class News:
    """What is new; sources may have no rows."""

    opened: Opened
    entries: Source
    losses: Source


class Follower:
    """Gives each row of a recording once, however the writer moves it from journals to files.

    Rows of a run keep their order of arrival, so the number of rows that were given says where to
    go on.
    """

    def __init__(self, catalog: Catalog, name: str, window: Window) -> None:
        self._catalog = catalog
        self._name = name
        self._window = window
        self._given: dict[str, dict[str, int]] | None = None  # rows of each run, by table

    def news(self) -> News:
        """Return everything the first time, then what is new since the last call.

        Raises UnknownRecordingError the first time, FilesGoneError when it was deleted since.
        """
        try:
            opened = self._catalog.open(self._name)
        except UnknownRecordingError:
            if self._given is None:
                raise
            raise FilesGoneError("The recording was deleted.") from None
        taken = opened.taken
        now = {table: taken.cursor(table) for table in ("entries", "losses")}
        if self._given is None:
            news = News(opened, opened.source("entries", self._window), opened.source("losses"))
        else:
            news = News(
                opened, self._after(opened, "entries", now), self._after(opened, "losses", now)
            )
        self._given = now
        return news

    def _after(self, opened: Opened, table: str, now: dict[str, dict[str, int]]) -> Source:
        assert self._given is not None
        given = self._given[table]
        if any(now[table].get(run, rows) < rows for run, rows in given.items()):
            raise FilesGoneError("The recording was deleted and made again.")
        if now[table] == given:
            return Source(self._name, (), (), 0)
        try:
            rows = opened.taken.rows_after(table, given)
        except OSError as error:
            raise FilesGoneError("A file of the recording could not be read.") from error
        return Source(self._name, (), ((f"{self._name}/~news", rows),), rows.num_rows)


class LiveFollower:
    """Gives each row of live traffic once."""

    def __init__(self, live: Live) -> None:
        self._live = live
        self._ends: tuple[int, int] | None = None

    def news(self) -> News:
        """Return everything the first time, then what is new since the last call."""
        if self._ends is None:
            opened, self._ends = self._live.open_to_follow()
            return News(opened, opened.source("entries"), opened.source("losses"))
        self._ends, entries, losses = self._live.news(self._ends)
        opened = Opened(Snapshot(RECORD, ()))
        return News(opened, _source("entries", entries), _source("losses", losses))


def _source(table: str, rows: pa.Table) -> Source:
    if not rows.num_rows:
        return Source(RECORD, (), (), 0)
    return Source(RECORD, (), ((f"~live/{table}", rows),), rows.num_rows)
