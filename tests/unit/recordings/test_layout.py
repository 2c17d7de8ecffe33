from pathlib import Path

import pytest

from recordings import layout

DATA = Path("/data")


def test_paths():
    folder = layout.run(DATA, "checkout", 1)
    assert folder == DATA / "recordings/checkout/0001"
    assert layout.journal(folder, 7).name == "journal-00000007.log"
    assert layout.segment(folder, "packets", 12).name == "packets-00000012.parquet"


@pytest.mark.parametrize("name", ["..", "a/../b", "", "/etc", ".deleted-1"])
def test_no_path_is_made_from_a_bad_name(name):
    with pytest.raises(ValueError, match=r"cannot name a recording|is empty"):
        layout.recording(DATA, name)


@pytest.mark.parametrize("run", [0, -1, 1_000_000])
def test_no_path_is_made_from_a_bad_run(run):
    with pytest.raises(ValueError, match="not the number of a run"):
        layout.run(DATA, "a", run)


def test_no_path_is_made_from_a_bad_table_or_number():
    with pytest.raises(KeyError):
        layout.segment(DATA, "../x", 1)
    with pytest.raises(ValueError, match="cannot number a file"):
        layout.journal(DATA, 0)


def test_only_recordings_and_runs_are_listed(tmp_path):
    root = layout.root(tmp_path)
    for folder in ("b/0002", "a/0001", "a/0010", "a/1", "a/0000", "a/00001", ".deleted-ff/0001"):
        (root / folder).mkdir(parents=True)
    (root / "file").write_text("")
    (root / "link").symlink_to("/etc")
    assert layout.recordings(tmp_path) == ["a", "b"]
    assert layout.runs(tmp_path, "a") == [1, 10]
    assert layout.runs(tmp_path, "none") == []


def test_journals_are_listed_in_order(tmp_path):
    for name in ("journal-00000010.log", "journal-00000002.log", "journal-2.log", "x"):
        (tmp_path / name).write_text("")
    assert layout.journals(tmp_path) == [2, 10]
