"""`recorder entry` and `recorder stream` with a real query service."""

import json

import pytest

from services.cli import demo
from services.cli.main import run


@pytest.fixture
def call(services, capsys):
    """Runs a command; returns its code, stdout and stderr."""

    def invoke(*arguments):
        code = run([*arguments, "--query-address", services["query"]])
        return code, *capsys.readouterr()

    return invoke


@pytest.fixture
def failed(call):
    """The entry with status 500."""
    _, out, _ = call("ask", 'record("shop") and response.status == 500', "--output", "json")
    return json.loads(out)


def test_an_entry_for_people_and_for_programs(call, failed):
    code, out, err = call("entry", failed["id"])
    assert code == 0, err
    assert "response.status: 500" in out
    assert "request.headers.Host: " in out
    assert "recordings: shop" in out
    assert "packets: " in out
    code, out, _ = call("entry", failed["id"], 'record("shop")', "--output", "json")
    found = json.loads(out)
    assert found["entry"]["id"] == failed["id"]
    assert found["packets"]["packets"] > 10
    assert found["stream"]["from_start"] is True


def test_a_stream_for_people_and_for_programs(call, failed):
    code, out, err = call("stream", failed["stream"])
    assert code == 0, err
    assert len([line for line in out.splitlines() if "/api/" in line]) > 3
    assert "RECEIVED/S" in out
    assert f"{len(demo.EXCHANGES)} entries of" in err
    code, out, _ = call("stream", failed["stream"], 'record("shop")', "--output", "json")
    summary, *entries = map(json.loads, out.splitlines())
    assert summary["connection"]["stream"] == failed["stream"]
    assert [each["index"] for each in entries] == list(range(len(demo.EXCHANGES)))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("entry", "x"), "not the id of an entry"),
        (("entry", "node/0000000000000000-0"), "There is no entry"),
        (("entry", "node/0000000000000000-0", "and and"), "^"),
        (("stream", "x"), "16 hex digits"),
        (("stream", "0" * 16), "There is no entry"),
    ],
)
def test_what_is_wrong_is_a_sentence(call, arguments, says):
    code, out, err = call(*arguments)
    assert (code, out) == (2, "")
    assert says in err
