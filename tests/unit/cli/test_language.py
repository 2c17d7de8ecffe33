"""`recorder kfl`, in this process: what it prints, and its code."""

import io
import json
import sys

import pytest

from services.cli.main import run

HTTP = '{"protocol": {"name": "http"},  "response": {"status": 500}}'
DNS = '{"protocol": {"name": "dns"}}'


def match(monkeypatch, capsys, text, stdin):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin), encoding="utf-8"))
    code = run(["kfl", "match", text])
    out, err = capsys.readouterr()
    return code, out, err


def test_match_copies_lines_as_they_are(monkeypatch, capsys):
    stdin = f"{HTTP}\n\n{DNS}\n{HTTP}".encode()
    assert match(monkeypatch, capsys, "http", stdin) == (0, f"{HTTP}\n{HTTP}\n", "")


def test_match_stops_at_the_limit(monkeypatch, capsys):
    stdin = f"{DNS}\n{HTTP}\n{HTTP}\nnot JSON\n".encode()
    assert match(monkeypatch, capsys, "http and limit(1)", stdin) == (0, f"{HTTP}\n", "")


def test_match_redacts(monkeypatch, capsys):
    entry = {"protocol": {"name": "http"}, "request": {"method": "GET", "body": "secret"}}
    text = 'http and redact("request.body")'
    code, out, _ = match(monkeypatch, capsys, text, json.dumps(entry).encode())
    assert code == 0
    assert json.loads(out)["request"] == {"method": "GET", "body": "[REDACTED]"}


def test_match_redacts_what_is_inside_of_texts(monkeypatch, capsys):
    """In any JSON, also where an entry would have something else."""
    text = (
        'redact("request.body.json().user.password", "request.query.t", "response.body.xml().a.b")'
    )
    request = {"body": '{"user": {"password": "s3cret"}, "n":1}', "url": "/a?t=s3cret&u=1"}
    request["queryString"] = {"t": ["s3cret", 1], "u": "1"}
    entries = [
        {"request": request, "response": {"body": "<a><b>s3cret</b></a>"}},
        {"request": "text", "response": [1]},
        {"request": {"body": {"user": 1}, "headers": [], "cookies": 3, "url": 4}, "response": None},
    ]
    stdin = "\n".join(json.dumps(entry) for entry in entries).encode()
    code, out, _ = match(monkeypatch, capsys, text, stdin)
    assert code == 0
    assert "s3cret" not in out
    first, *others = [json.loads(line) for line in out.splitlines()]
    assert others == entries[1:]
    assert first["request"] == {
        "body": '{"user": {"password": "[REDACTED]"}, "n":1}',
        "url": "/a?t=[REDACTED]&u=1",
        "queryString": {"t": ["[REDACTED]", "[REDACTED]"], "u": "1"},
    }
    assert first["response"] == {"body": "<a><b>[REDACTED]</b></a>"}


@pytest.mark.parametrize(
    ("stdin", "says"),
    [
        (f"{HTTP}\nnonsense\n".encode(), "Line 2 of stdin is not JSON"),
        (b"[1]\n", "Line 1 of stdin is JSON but not an object"),
        (b"\xff\xfe\n", "not UTF-8"),
        (b'{"a":' * 100_000 + b"\n", "Line 1 of stdin is not JSON"),
    ],
)
def test_match_names_the_line_that_is_wrong(monkeypatch, capsys, stdin, says):
    code, _, err = match(monkeypatch, capsys, "http", stdin)
    assert code == 2
    assert says in err
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize("command", ["check", "explain", "match"])
def test_a_wrong_statement_is_shown_with_a_caret(capsys, command):
    assert run(["kfl", command, "http and and"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    text, caret, message = err.splitlines()
    assert text.strip() == "http and and"
    assert text[caret.index("^") :].startswith("and")
    assert message.startswith("line 1, column 10")


def test_check_says_yes_and_warns(capsys):
    assert run(["kfl", "check", "http and tls or dns"]) == 0
    out, err = capsys.readouterr()
    assert "can be used" in out
    assert "warning" in err


def test_check_for_programs(capsys):
    assert run(["kfl", "check", "http and and", "--output", "json"]) == 2
    answer = json.loads(capsys.readouterr().out)
    assert answer["ok"] is False
    assert answer["diagnostics"][0]["column"] == 10
    assert answer["diagnostics"][0]["error"] is True


def test_explain(capsys):
    assert run(["kfl", "explain", "http and response.status == 500"]) == 0
    out = capsys.readouterr().out
    assert "response.status" in out
    assert "500" in out


MACROS = ["--macros", '{"https": "tls and (http or http2)"}']


def test_words_of_operators_are_known(monkeypatch, capsys, tmp_path):
    assert run(["kfl", "check", "https and status_code == 500", *MACROS]) == 0
    assert run(["kfl", "explain", "dns or https", *MACROS]) == 0
    assert "http2" in capsys.readouterr().out
    secure = HTTP.replace("{", '{"tls": true, ', 1)
    monkeypatch.setenv("RECORDER_MACROS", MACROS[1])
    stdin = f"{HTTP}\n{secure}\n".encode()
    assert match(monkeypatch, capsys, "https", stdin) == (0, f"{secure}\n", "")


def test_what_is_wrong_with_words_of_operators_is_said_with_code_2(capsys):
    assert run(["kfl", "check", "http", "--macros", '{"dns": "udp", "a": "nope"}']) == 2
    err = capsys.readouterr().err
    assert "--macros: The word `dns` exists already." in err


def test_complete_shows_what_can_come_next(capsys):
    assert run(["kfl", "complete", "response.stat"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split() == ["INSERT", "KIND", "TYPE", "HELP"]
    assert lines[3].split()[:3] == ["status", "field", "number"]


def test_complete_for_programs(capsys):
    text = 'record("d") and http'
    arguments = ["--caret", "9", "--recording", "demo", "--output", "json"]
    assert run(["kfl", "complete", text, *arguments]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["start"], found["end"]) == (7, 10)
    assert found["candidates"] == [
        {"insert": '"demo"', "kind": "recording", "type": "text", "help": "a recording"}
    ]


def test_complete_refuses_a_caret_behind_the_end(capsys):
    assert run(["kfl", "complete", "http", "--caret", "5"]) == 2
    assert "behind the end: 4 characters" in capsys.readouterr().err
