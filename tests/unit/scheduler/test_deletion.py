import pytest

from services.scheduler import deletion


def test_what_is_removed_is_gone_and_the_rest_is_not(tmp_path):
    for name in ("a/0001", "a/0002", "b/0001"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "file").write_text("x")
    deletion.remove(tmp_path, tmp_path / "a" / "0001")
    deletion.remove(tmp_path, tmp_path / "b")
    deletion.remove(tmp_path, tmp_path / "never")
    assert sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*")) == [
        "a",
        "a/0002",
        "a/0002/file",
    ]


def test_a_deletion_that_was_interrupted_is_out_of_sight_and_swept(tmp_path, monkeypatch):
    (tmp_path / "a").mkdir()

    def fail(path):
        raise OSError("killed")

    monkeypatch.setattr(deletion.shutil, "rmtree", fail)
    with pytest.raises(OSError, match="killed"):
        deletion.remove(tmp_path, tmp_path / "a")
    monkeypatch.undo()
    assert [path.name[:9] for path in tmp_path.iterdir()] == [".deleted-"]
    deletion.sweep(tmp_path)
    assert list(tmp_path.iterdir()) == []
