"""`recorder dissect` over the demo's conversations."""

import json
import re
import subprocess
import sys

import pyarrow.parquet as pq
import pytest

from recordings.schema import ENTRIES
from services.cli import demo
from services.cli.main import run


@pytest.fixture(scope="module")
def capture(tmp_path_factory):
    path = tmp_path_factory.mktemp("dissect") / "demo.pcap"
    demo.write_capture(path, demo.Ports(8080, 53))
    return path


@pytest.fixture
def dissect(capture, capsys):
    def call(*arguments, file=capture):
        code = run(["dissect", str(file), *arguments])
        return code, *capsys.readouterr()

    return call


def test_json_lines(dissect):
    code, out, err = dissect()
    assert (code, err) == (0, "")
    entries = [json.loads(line) for line in out.splitlines()]
    http = [entry for entry in entries if entry["protocol"]["name"] == "http"]
    assert [entry["request"]["method"] for entry in http] == [e[0] for e in demo.EXCHANGES]
    assert len(entries) == len(demo.EXCHANGES) + len(demo.QUESTIONS)


def test_a_filter_and_a_body_limit(dissect):
    code, out, _ = dissect("--kfl", "response.status == 500", "--body-limit", "5")
    assert code == 0
    (entry,) = [json.loads(line) for line in out.splitlines()]
    assert entry["response"]["body"] == '{"err'
    assert entry["response"]["bodyTruncated"] is True


def test_a_filter_that_redacts(dissect):
    text = 'response.status == 500 and redact("response.body")'
    code, out, _ = dissect("--kfl", text)
    assert code == 0
    assert json.loads(out)["response"]["body"] == "[REDACTED]"
    assert "the bank is away" not in out


def test_counts(dissect):
    expected = f"dns\t{len(demo.QUESTIONS)}\nhttp\t{len(demo.EXCHANGES)}\n"
    assert dissect("--output", "count") == (0, expected, "")
    assert (
        dissect("--output", "count", "--kfl", "http and response.status == 404")[1] == "http\t1\n"
    )


def test_a_table(dissect):
    code, out, _ = dissect("--output", "table")
    assert code == 0
    assert "NXDOMAIN" in out
    assert "/api/payments" in out


def test_parquet(dissect, tmp_path):
    path = tmp_path / "entries.parquet"
    assert dissect("--output", "parquet", "-o", str(path))[0] == 0
    table = pq.read_table(path)
    assert table.schema.names == ENTRIES.names
    assert table.num_rows == len(demo.EXCHANGES) + len(demo.QUESTIONS)


def test_json_to_a_file(dissect, tmp_path):
    path = tmp_path / "entries.jsonl"
    assert dissect("-o", str(path)) == (0, "", "")
    assert len(path.read_text().splitlines()) == len(demo.EXCHANGES) + len(demo.QUESTIONS)


def test_stdin_and_a_reader_that_goes_away(capture):
    command = [sys.executable, "-m", "services.cli.main", "dissect", "-"]
    with capture.open("rb") as stdin:
        done = subprocess.run(command, stdin=stdin, capture_output=True, check=False, timeout=100)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(b"\n") == len(demo.EXCHANGES) + len(demo.QUESTIONS)


@pytest.mark.parametrize(
    "content", [b"", b"\x0a", b"no capture at all, but longer than any header of one"]
)
def test_what_is_no_capture_is_a_line(dissect, tmp_path, content):
    path = tmp_path / "odd"
    path.write_bytes(content)
    code, out, err = dissect(file=path)
    assert (code, out) == (2, "")
    assert len(err.splitlines()) == 1
    code, _, err = dissect(file=tmp_path / "absent")
    assert code == 2
    assert "absent" in err


def test_a_sample_of_the_streams_says_that_it_is_one(dissect):
    code, out, err = dissect("--sample", "40", "--output", "count")
    assert code == 0
    assert out != dissect("--output", "count")[1]
    assert re.fullmatch(r"Missing: \d+ packets \(sampled\)\. 40 percent of .*\n", err)
    assert dissect("--sample", "100")[1:] == dissect()[1:]


@pytest.mark.parametrize("given", ["0", "-1", "100.5", "nan", "ten", ""])
def test_a_sample_that_is_no_percentage_is_refused_with_a_sentence(dissect, given):
    code, out, err = dissect("--sample", given)
    assert (code, out) == (2, "")
    assert err.startswith(f"--sample: {given!r} is no part of the streams; write percent, above 0")


def test_a_file_that_was_cut_gives_what_it_has_and_says_so(dissect, capture, tmp_path):
    path = tmp_path / "cut.pcap"
    path.write_bytes(capture.read_bytes()[:-10])
    code, out, err = dissect(file=path)
    assert code == 0
    assert len(out.splitlines()) == len(demo.EXCHANGES) + len(demo.QUESTIONS)
    assert "capture damage" in err
