from typing import Any

import pytest

import kfl
from services.query import answer, plan
from services.query.catalog import Catalog, UnknownRecordingError
from services.query.engine import Engine
from services.query.follow import Follower
from services.query.plan import ALWAYS, Window
from tests.unit.query.conftest import written


def test_files_outside_the_window_are_not_read(disk: Any) -> None:
    start = disk.start_ns
    run = disk.run("web")
    for offset in (0, 1000):
        run.append(entries=[{"start_time": start + offset}])
        run.turn()
    opened = disk.catalog().open("web")
    assert [path.name for path in opened.source("entries").files] == [
        "entries-00000001.parquet",
        "entries-00000002.parquet",
    ]
    late = opened.source("entries", Window(start + 1, None))
    assert ([path.name for path in late.files], late.rows) == (["entries-00000002.parquet"], 1)
    assert opened.source("entries", Window(None, start)).rows == 0


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ("chekout", 'There is no recording "chekout". Did you mean "checkout"?'),
        (
            "zzzz",
            'There is no recording "zzzz". There are "cart" and "checkout". '
            "A job has one when its first run has begun.",
        ),
    ],
)
def test_an_unknown_name_is_told_with_the_nearest(disk: Any, asked: str, told: str) -> None:
    disk.run("checkout")
    disk.run("cart")
    with pytest.raises(UnknownRecordingError) as caught:
        disk.catalog().open(asked)
    assert str(caught.value) == told
    assert caught.value.is_name


def test_of_many_recordings_some_are_named(disk: Any) -> None:
    for number in range(12):
        disk.run(f"day-{number:02}")
    sentence = disk.catalog().listing()
    assert sentence.startswith('There are 12 recordings, among them "day-00", "day-01"')
    assert "day-11" not in sentence


def test_a_snapshot_is_fresh_each_time(disk: Any) -> None:
    run = disk.run("web")
    catalog = disk.catalog()
    assert catalog.open("web").source("entries").rows == 0
    run.append(entries=[{}])
    assert catalog.open("web").source("entries").rows == 1
    run.turn()
    assert catalog.open("web").source("entries").rows == 1


def test_a_link_among_the_recordings_is_none(disk: Any, tmp_path: Any) -> None:
    disk.run("web")
    (disk.data / "recordings" / "elsewhere").symlink_to(tmp_path)
    catalog = disk.catalog()
    assert catalog.names() == ["web"]
    with pytest.raises(UnknownRecordingError):
        catalog.open("elsewhere")


def test_a_recording_has_its_parts_in_several_folders(tmp_path: Any) -> None:
    with written(tmp_path / "a") as one, written(tmp_path / "b") as other:
        catalog = Catalog(one.data, other.data, tmp_path / "not-there")
        for disk, runs in ((one, (1, 2)), (other, (1, 3))):
            for number in runs:
                disk.run("web", number).append(entries=[{"start_time": one.start_ns + number}])
        other.run("alone")
        one.runs[0].turn()
        assert catalog.names() == ["alone", "web"]
        opened = catalog.open("web")
        assert [run.run for run in opened.taken.runs] == [1, 1, 2, 3]
        assert opened.source("entries").rows == 4
        summary = next(each for each in catalog.summaries() if each.name == "web")
        assert (summary.runs, summary.entries) == (3, 4)
        follower = Follower(catalog, "web", ALWAYS)
        assert follower.news().entries.rows == 4
        other.runs[0].append(entries=[{"start_time": one.start_ns}])
        assert follower.news().entries.rows == 1


def test_rows_of_all_folders_are_in_one_answer(tmp_path: Any) -> None:
    with written(tmp_path / "a") as one, written(tmp_path / "b") as other:
        for offset, disk in enumerate((one, other)):
            run = disk.run("web")
            for more in (0, 10):
                run.append(entries=[{"index": 1, "start_time": one.start_ns + offset + more}])
                if not more:
                    run.turn()
        catalog = Catalog(one.data, other.data)
        engine = Engine(*catalog.folders, memory_limit_bytes=64 << 20, threads=1)
        statement = kfl.compile('record("web") and http')
        with engine.session(30) as session:
            planned = plan.entries(statement, [catalog.open("web").source("entries")])
            tables = list(answer.of_plan(session, planned, statement, ALWAYS))
        engine.close()
        times = [t for table in tables for t in answer.nanoseconds_of(table["start_time"])]
        assert [time - one.start_ns for time in times] == [0, 1, 10, 11]
