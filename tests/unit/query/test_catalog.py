from typing import Any

import pytest

from services.query.catalog import UnknownRecordingError
from services.query.plan import Window


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
