from typing import Any

import kfl
from services.query import plan


def test_values_names_and_paths_are_parameters_never_text(disk: Any) -> None:
    run = disk.run("web")
    run.append(entries=[{}])
    run.turn()
    run.append(entries=[{}])
    source = disk.catalog().open("web").source("entries")
    condition = kfl.compile(
        'record("web") and request.path == "/hostile\'" and response.body.contains("v4lue")'
    )
    question = plan.entries(condition, [source], limit=77).question
    for text in ("web", "hostile", "v4lue", str(disk.data), "77", ".parquet"):
        assert text not in question.sql
        assert text in str(question.parameters)


def test_only_the_files_of_the_snapshot_are_read(disk: Any) -> None:
    run = disk.run("web")
    run.append(entries=[{}])
    run.turn()
    (run.folder / "entries-00000009.parquet").write_bytes(b"left by a crash")
    source = disk.catalog().open("web").source("entries")
    question = plan.entries(kfl.compile('record("web")'), [source]).question
    assert [str(run.folder.resolve() / "entries-00000001.parquet")] in question.parameters
    assert "00000009" not in str(question.parameters)


def test_a_window_touches_what_overlaps_it() -> None:
    window = plan.Window(10, 20)
    assert window.touches(0, 10)
    assert window.touches(19, 30)
    assert window.touches(0, 30)
    assert not window.touches(0, 9)
    assert not window.touches(20, 30)
    assert plan.ALWAYS.touches(0, 0)
