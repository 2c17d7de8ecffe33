"""`recorder import`, `ask` and `export` with a real scheduler and a real query service."""

import csv
import io
import json
import subprocess
import sys

import pytest
from scapy.layers.inet import TCP
from scapy.utils import rdpcap

from services.cli import demo
from services.cli.ask import _cell, loss_line
from services.cli.main import run

PORTS = demo.Ports(8080, 53)


@pytest.fixture
def ask(services, capsys):
    """Runs `recorder ask …`; returns its code, stdout and stderr."""

    def call(*arguments):
        code = run(["ask", *arguments, "--query-address", services["query"]])
        return code, *capsys.readouterr()

    return call


def test_import_says_what_it_recorded(services):
    done = services["imported"]
    assert done.returncode == 0, done.stderr
    http, dns = len(demo.EXCHANGES), len(demo.QUESTIONS)
    assert f"Recorded {http + dns} entries in {1 + dns} streams" in done.stdout
    assert "recorder ask 'record(\"shop\")'" in done.stderr


def test_a_table_for_people(ask):
    code, out, err = ask('record("shop") and http')
    assert code == 0
    assert len(out.split("/api/orders/1")) == 4
    assert "500" in out
    assert f"127.0.0.1:{PORTS.http}" in out
    assert f"{len(demo.EXCHANGES)} entries of" in err


def test_json_lines_for_programs(ask):
    code, out, _ = ask('record("shop")', "--output", "json")
    assert code == 0
    entries = [json.loads(line) for line in out.splitlines()]
    assert len(entries) == len(demo.EXCHANGES) + len(demo.QUESTIONS)
    assert {entry["protocol"]["name"] for entry in entries} == {"http", "dns"}
    assert {entry["record"] for entry in entries} == {"shop"}


def test_csv_for_spreadsheets(ask):
    code, out, _ = ask('record("shop") and response.status >= 400', "--output", "csv")
    assert code == 0
    rows = list(csv.DictReader(io.StringIO(out)))
    assert sorted(row["status"] for row in rows) == ["404", "500"]
    assert {row["path"] for row in rows} == {"/nowhere", "/api/payments"}


def test_a_limit_says_that_there_is_more(ask):
    code, out, err = ask('record("shop") and http', "--limit", "2", "--output", "json")
    assert (code, len(out.splitlines())) == (0, 2)
    assert "more match" in err


def test_latest_first(ask):
    _, out, _ = ask('record("shop") and http', "--latest", "--limit", "1", "--output", "json")
    assert json.loads(out)["request"]["method"] == "DELETE"


@pytest.mark.parametrize("text", ["http and and", 'record("shop") and and'])
def test_a_wrong_statement_has_a_caret(ask, text):
    code, out, err = ask(text)
    assert (code, out) == (2, "")
    shown, caret, _ = err.splitlines()
    assert shown[caret.index("^") :].startswith("and")


def test_an_unknown_recording_is_named_with_what_is_near(ask):
    code, out, err = ask('record("shpo")')
    assert (code, out) == (2, "")
    assert "shpo" in err
    assert "shop" in err
    assert "Traceback" not in err


def test_follow_goes_on_until_ctrl_c(services):
    import signal

    follower = subprocess.Popen(
        [
            *(sys.executable, "-m", "services.cli.main", "ask", 'record("shop") and dns', "-f"),
            *("--query-address", services["query"]),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert follower.stdout.readline().startswith("TIME")
    names = [follower.stdout.readline().split()[5] for _ in demo.QUESTIONS]
    assert names == [name for name, _ in demo.QUESTIONS]
    follower.send_signal(signal.SIGINT)
    _, err = follower.communicate(timeout=30)
    assert follower.returncode == 130
    assert "Traceback" not in err


def test_export_gives_the_packets_back(services, tmp_path, capsys):
    path = tmp_path / "shop.pcapng"
    text = 'record("shop") and response.status == 404'
    code = run(["export", text, "-o", str(path), "--query-address", services["query"]])
    _, err = capsys.readouterr()
    assert code == 0, err
    packets = rdpcap(str(path))
    # The whole connection: handshake, every exchange, and its end.
    assert len(packets) == 3 + 3 * len(demo.EXCHANGES) + 3
    assert all(TCP in packet for packet in packets)
    assert f"to {path}" in err


def test_an_import_that_cannot_be_is_a_line(services, tmp_path, capsys):
    (tmp_path / "x.pcap").write_bytes(b"this is no capture at all")
    address = ("--scheduler", services["scheduler"])
    for arguments, says in (
        (["import", str(tmp_path / "x.pcap"), "--record", "x"], "x.pcap"),
        (["import", str(tmp_path / "absent"), "--record", "x"], "absent"),
        (["import", str(services["folder"] / "demo.pcap"), "--record", "shop"], "shop"),
        (["import", str(services["folder"] / "demo.pcap"), "--record", "A/b"], "A/b"),
    ):
        code = run([*arguments, *address])
        out, err = capsys.readouterr()
        assert (code, out) == (2, ""), err
        assert says in err
        assert len(err.splitlines()) == 1


def test_what_looks_like_a_formula_is_text():
    assert _cell("=HYPERLINK(1)") == "'=HYPERLINK(1)"
    assert _cell("/plain") == "/plain"
    assert _cell(-5) == -5


def test_a_loss_is_a_sentence():
    from recorder.v1 import query_pb2

    loss = query_pb2.Loss(recording="a", node="n", kind="kernel_drop", packets=7, detail="x\x1b[2J")
    line = loss_line(loss)
    assert line == "Missing in a: 7 packets on n (kernel drop). x\\x1b[2J"
