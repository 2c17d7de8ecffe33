import stat
from pathlib import Path

import pytest

from services.cli.export import opened
from services.runtime.errors import UserError


def test_a_file_appears_when_it_is_whole(tmp_path):
    path = tmp_path / "a.pcapng"
    path.write_bytes(b"before")
    with opened(path) as file:
        file.write(b"after")
        file.flush()
        assert path.read_bytes() == b"before"
    assert path.read_bytes() == b"after"
    assert [found.name for found in tmp_path.iterdir()] == ["a.pcapng"]
    assert stat.S_IMODE(path.stat().st_mode) & 0o400


def test_nothing_is_left_of_a_file_that_failed(tmp_path):
    def fail():
        with opened(tmp_path / "a") as file:
            file.write(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_there_is_a_sentence(tmp_path):
    with pytest.raises(UserError, match="No such file or directory"), opened(tmp_path / "b" / "a"):
        pass


def test_a_device_is_written_to_and_stays():
    with opened(Path("/dev/null")) as file:
        file.write(b"x")
    assert Path("/dev/null").is_char_device()
