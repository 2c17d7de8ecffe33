from typing import Any

import pyarrow as pa
import pytest

import kfl
from recordings import entry
from services.query import answer, plan
from services.query.plan import ALWAYS, Window


@pytest.fixture
def ties(disk: Any) -> list[int]:
    """4000 entries, 7 ns apart and not in the order of arrival, in two files and a journal."""
    offsets = [(i * 1237 % 4000) * 7 for i in range(4000)]
    rows = [
        {"start_time": disk.start_ns + offset, "index": i, "stream": f"{4000 - offset:016x}"}
        for i, offset in enumerate(offsets)
    ]
    run = disk.run("web")
    for part in (rows[:1500], rows[1500:3000]):
        run.append(entries=part)
        run.turn()
    run.append(entries=rows[3000:])
    return sorted(disk.start_ns + offset for offset in offsets)


def times(engine: Any, disk: Any, window: Window = ALWAYS, **fields: Any) -> list[int]:
    condition = kfl.compile('record("web")')
    sources = [disk.catalog().open("web").source("entries")]
    planned = plan.entries(condition, sources, window=window, **fields)
    with engine.session(60) as session:
        found = answer.of_plan(session, planned, condition, window)
        return [int(time) for table in found for time in answer.nanoseconds_of(table["start_time"])]


def test_entries_of_one_microsecond_are_in_the_order_of_their_nanoseconds(
    engine: Any, disk: Any, ties: list[int]
) -> None:
    assert times(engine, disk) == ties
    assert times(engine, disk, descending=True) == ties[::-1]


def test_order_is_kept_when_more_share_a_microsecond_than_are_held(
    engine: Any, disk: Any, ties: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answer, "MAX_HELD_ROWS", 3)
    found = times(engine, disk)
    assert sorted(found) == ties
    assert [time // 1000 for time in found] == [time // 1000 for time in ties]


def test_a_window_cuts_between_nanoseconds(engine: Any, disk: Any, ties: list[int]) -> None:
    window = Window(ties[10] + 1, ties[2000])
    assert times(engine, disk, window) == ties[11:2000]


def test_few_entries_are_answered_the_same_without_an_engine(
    engine: Any, disk: Any, ties: list[int]
) -> None:
    condition = kfl.compile('record("few") and response.status == 500 and stream.contains("f")')
    rows = [{"start_time": time, "stream": f"{time:016x}"} for time in ties[:300]]
    disk.run("few").append(entries=rows[::-1])
    window = Window(ties[10], ties[200])
    source = disk.catalog().open("few").source("entries")
    (few,) = answer.of_few([source], condition, window)
    with engine.session(60) as session:
        planned = plan.entries(condition, [source], window=window)
        by_engine = pa.concat_tables(answer.of_plan(session, planned, condition, window))
    assert 0 < few.num_rows < 190
    assert entry.objects(few) == entry.objects(by_engine)


def test_a_limit_is_given_to_the_engine_only_where_it_decides_alone(disk: Any) -> None:
    disk.run("web").append(entries=[{}])
    sources = [disk.catalog().open("web").source("entries")]
    condition = kfl.compile('record("web")')
    whole = plan.entries(condition, sources, window=Window(1000, 2000), limit=5)
    assert whole.is_exact
    assert "LIMIT" in whole.question.sql
    part = plan.entries(condition, sources, window=Window(1001, 2000), limit=5)
    assert not part.is_exact
    assert "LIMIT" not in part.question.sql
