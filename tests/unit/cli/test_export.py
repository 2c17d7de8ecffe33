import json
import stat
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from services.cli.export import opened
from services.cli.main import run
from services.runtime.errors import UserError
from tests.unit.gateway.conftest import served as served


@pytest.fixture
def say(served, tmp_path, monkeypatch, capsys):
    """Run a command in an empty folder; what it returns, and writes on both."""
    monkeypatch.chdir(tmp_path)

    def start(*arguments):
        code = run([*arguments, "--query-address", served.query])
        return (code, *capsys.readouterr())

    return start


def test_a_file_is_what_its_name_ends_with(say):
    for ending in ("har", "pcap", "parquet", "JSONL", "ndjson", "pcapng", "bin"):
        assert say("export", 'record("shop")', "-o", f"a.{ending}")[0] == 0
    assert len(json.loads(Path("a.har").read_text())["log"]["entries"]) == 40
    assert Path("a.pcap").read_bytes()[:4] == b"\x4d\x3c\xb2\xa1"
    assert pq.read_table("a.parquet").num_rows == 40
    assert len(Path("a.JSONL").read_text().splitlines()) == 40
    assert Path("a.ndjson").read_bytes() == Path("a.JSONL").read_bytes()
    assert Path("a.bin").read_bytes() == Path("a.pcapng").read_bytes()


def test_a_kind_that_is_named_wins(say):
    say("export", 'record("shop")', "-o", "a.pcapng", "--format", "jsonl")
    assert Path("a.pcapng").read_text().startswith('{"id":')


def test_it_says_what_was_written_and_what_is_missing(say):
    _, out, err = say("export", 'record("shop") and response.status == 500', "-o", "a.pcapng")
    assert out == ""
    assert "Missing in shop: 3 packets" in err
    size = Path("a.pcapng").stat().st_size
    assert f"Wrote 20 packets of 5 streams, {size / 1000:.1f} kB to a.pcapng." in err
    _, _, err = say("export", 'record("shop")', "-o", "a.har")
    assert "Wrote 40 entries, " in err


def test_it_says_when_nothing_matches(say):
    code, _, err = say("export", 'record("shop") and dns', "-o", "a.pcapng")
    assert code == 0
    assert "No entry matches; wrote an empty pcapng file to a.pcapng." in err
    assert "Wrote" not in err
    _, _, err = say("export", 'record("shop") and dns', "-o", "a.har")
    assert "No HTTP entry matches" in err


def test_lines_go_to_the_output(say):
    code, out, _ = say("export", 'record("shop") and limit(3)', "-o", "-", "--format", "jsonl")
    assert (code, len(out.splitlines())) == (0, 3)


@pytest.mark.parametrize("kfl", ['record("shpo")', 'record("shop") and and', 'record("shop") and'])
def test_what_is_wrong_leaves_no_file_and_no_header(say, kfl):
    code, out, err = say("export", kfl, "-o", "a.har")
    assert (code, out) == (2, "")
    assert err
    assert not list(Path().iterdir())
    for output in ("csv", "json", "table"):
        assert say("ask", kfl, "--output", output)[:2] == (2, "")


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
