"""`recorder top`, `map`, `histogram`, `connections` and `diff` with a real query service."""

import json

import pytest

from services.cli import demo
from services.cli.answers import octets
from services.cli.main import run

HTTP = 'record("shop") and http'


@pytest.fixture
def call(services, capsys):
    """Runs a command; returns its code, stdout and stderr."""

    def invoke(*arguments):
        code = run([*arguments, "--query-address", services["query"]])
        return code, *capsys.readouterr()

    return invoke


def test_top_values_for_people_and_for_programs(call):
    code, out, err = call("top", "response.status", HTTP)
    assert code == 0, err
    header, _, first, *_ = [line.split() for line in out.splitlines() if line.strip()]
    assert header == ["VALUE", "ENTRIES", "ERRORS", "P50", "P90", "P99"]
    assert first[0] == "200"
    assert f"{len(demo.EXCHANGES)} entries of" in err
    code, out, _ = call("top", "response.status", HTTP, "--output", "json", "--limit", "1")
    found = json.loads(out)
    assert (len(found["values"]), found["account"]["status"]["truncated"]) == (1, True)
    assert isinstance(found["values"][0]["figures"]["entries"], int)
    errors = call(
        "top", "response.status", HTTP + " and response.status == 500", "--output", "json"
    )
    (failed,) = json.loads(errors[1])["values"]
    assert failed["figures"]["errors"] == failed["figures"]["entries"] > 0


def test_what_has_no_value_is_shown(call):
    _, out, _ = call("top", "response.status", 'record("shop")')
    assert "(no value)" in out


def test_a_map(call):
    code, out, _ = call("map", 'record("shop")')
    assert code == 0
    assert {line.split()[2] for line in out.splitlines() if "127.0.0.1" in line} == {"HTTP", "DNS"}
    found = json.loads(call("map", HTTP, "--output", "json")[1])
    (edge,) = found["edges"]
    assert edge["dst"]["ip"] == "127.0.0.1"
    assert edge["figures"]["entries"] == len(demo.EXCHANGES)


def test_a_histogram_has_bars(call):
    code, out, _ = call("histogram", HTTP)
    assert code == 0
    assert "buckets of" in out
    assert "█" * 40 in out
    code, out, _ = call("histogram", HTTP, "--by", "response.status", "--bucket-ms", "60000")
    assert "VALUE" in out
    found = json.loads(call("histogram", HTTP, "--output", "json")[1])
    assert sum(each["figures"]["entries"] for each in found["buckets"]) == len(demo.EXCHANGES)
    assert found["buckets"][0]["start_time"].endswith("Z")


def test_a_time_range(call):
    _, _, err = call("top", "tls", HTTP, "--start", "2100-01-01T00:00:00Z")
    assert err.startswith("0 entries of")
    code, out, err = call("top", "tls", HTTP, "--start", "yesterday")
    assert (code, out) == (2, "")
    assert "2026-03-14T08:45:00Z" in err


def test_connections(call):
    code, out, _ = call("connections", 'record("shop")')
    assert code == 0
    assert "SENT/S" in out
    found = json.loads(call("connections", HTTP, "--output", "json")[1])
    (connection,) = found["connections"]
    assert connection["protocols"] == ["HTTP"]
    assert connection["duration_us"] > 0


def test_a_diff_takes_names_and_statements(call):
    code, out, err = call("diff", "shop", "shop")
    assert code == 0, err
    assert "2 times higher or lower" in out
    found = json.loads(call("diff", HTTP, 'record("shop") and dns', "--output", "json")[1])
    kinds = {(each["dimension"], *each["changes"]) for each in found["differences"]}
    assert ("path", "vanished") in kinds
    code, out, _ = call("diff", HTTP, 'record("shop") and dns')
    assert "vanished" in out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("top", "src.", HTTP), "field"),
        (("top", "response.status", "http and and"), "^"),
        (("map", 'record("shpo")'), "shop"),
        (("diff", "shop", "shpo"), "shop"),
        (("diff", "shop", "shop", "--after-run", "9"), "no run 9"),
        (("diff", "shop", "shop", "--threshold", "0.1"), "threshold"),
        (("histogram", HTTP, "--bucket-ms", "-1"), "--bucket-ms"),
    ],
)
def test_what_is_wrong_is_a_sentence(call, arguments, says):
    code, out, err = call(*arguments)
    assert (code, out) == (2, "")
    assert says in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0 B"), (999, "999 B"), (1500, "1.5 kB"), (2e9, "2.0 GB"), (3e15, "3000.0 TB")],
)
def test_octets(number, text):
    assert octets(number) == text
