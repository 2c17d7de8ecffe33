"""What nginx and dnsmasq were asked is what the recorder tells, call for call."""

from __future__ import annotations

import base64
import gzip
from collections.abc import Callable
from typing import Any

import pytest

from tests.e2e.network import LARGE, SERVER6, Answer, Network, large_text
from tests.e2e.services import Recorder, path_of

pytestmark = [pytest.mark.root, pytest.mark.debian]

COMPRESSED = ("-H", "Accept-Encoding: gzip")


def make_calls(network: Network, word: str) -> list[Answer]:
    """Make calls of every kind; return what curl got. Each has a path of its own."""
    number = 0

    def fresh(kind: str) -> str:
        nonlocal number
        number += 1
        return f"/{kind}/{word}-{number}"

    found: list[Answer] = []
    kinds = ("ok", "created", "empty", "found", "missing", "broken", "large", "chunked")
    for method in ("GET", "POST", "DELETE", "PATCH", "OPTIONS"):
        found += network.curl(fresh("ok"), method=method)
    for kind in kinds:
        found += network.curl(fresh(kind))
    # One connection, many calls; by IPv6 too.
    found += network.curl(*(fresh(kind) for kind in kinds * 3))
    found += network.curl(*(fresh(kind) for kind in kinds), host=SERVER6)
    found += network.curl(fresh("gzip"), fresh("ok"), fresh("gzip"), more=COMPRESSED)
    found += network.curl(fresh("ok"), fresh("missing"), method="HEAD")
    large = ("--data-binary", f"@{network.folder / 'large.txt'}", "-H", "Expect:")
    found += network.curl(fresh("store"), fresh("store"), method="PUT", more=large)
    in_chunks = (*large, "-H", "Transfer-Encoding: chunked")
    found += network.curl(fresh("store"), method="PUT", more=in_chunks, host=SERVER6)
    asks_first = (*large[:2], "-H", "Expect: 100-continue")
    found += network.curl(fresh("store"), method="PUT", more=asks_first)
    found += network.curl(fresh("ok") + "?a=1&b=%20%2F&a=2")
    return found


def body_of(message: dict[str, Any]) -> bytes:
    text = str(message["body"])
    return base64.b64decode(text) if message.get("bodyBase64") else text.encode()


def test_every_call_is_there_once_as_it_was(
    network: Network, live: Recorder, new_name: Callable[[], str]
) -> None:
    name = new_name()
    live.record(name, "http or dns", "--body-limit", str(LARGE))
    logged_before = len(network.served())
    answers = make_calls(network, name)
    served = network.served()[logged_before:]
    entries = live.wait_for(f'record("{name}") and http', len(served))

    def told(entry: dict[str, Any]) -> tuple[str, str, int]:
        return entry["request"]["method"], entry["request"]["url"], entry["response"]["status"]

    assert sorted(map(told, entries)) == sorted(
        (str(line["method"]), str(line["path"]), line["status"]) for line in served
    )
    assert [entry["error"] for entry in entries] == [None] * len(entries)
    by_url = {entry["request"]["url"]: entry for entry in entries}
    for answer in answers:
        response = by_url[answer.path]["response"]
        assert response["bodySize"] == len(answer.body), answer.path
        is_compressed = answer.path.startswith("/gzip/")
        assert body_of(response) == (
            gzip.decompress(answer.body) if is_compressed else answer.body
        ), answer.path
        request = by_url[answer.path]["request"]
        sent = large_text() if answer.path.startswith("/store/") else b""
        assert request["bodySize"] == len(sent), answer.path
        assert body_of(request) == sent, answer.path
    assert by_url[answers[-1].path]["request"]["queryString"] == {"a": ["1", "2"], "b": " /"}

    # Each connection of nginx is one stream, and its calls are counted in it.
    connections = {path_of({"request": {"path": str(line["path"])}}): line for line in served}
    for entry in entries:
        end = entry["src"]
        host = f"{end['ip']}:{end['port']}"
        assert connections[entry["request"]["url"]]["connection"] == host
    streams: dict[str, list[int]] = {}
    for entry in entries:
        streams.setdefault(entry["stream"], []).append(entry["index"])
    assert len(streams) == len({line["connection"] for line in served})
    assert all(sorted(found) == list(range(len(found))) for found in streams.values())

    job = live.stop_job(name)
    [run] = job["runs"]
    assert run["entries"] == len(served)
    assert run["lost_packets"] == 0
    assert live.ask(f'record("{name}")') == live.ask(f'record("{name}") and http')
    assert len(live.ask(f'record("{name}")')) == len(served), "and nothing else"


def record_of(answer: dict[str, Any]) -> tuple[str, str, str]:
    """Return name, type and data of a record, as dig writes them."""
    data = {
        "A": lambda: answer["ip"],
        "AAAA": lambda: answer["ip"],
        "CNAME": lambda: answer["cname"] + ".",
        "PTR": lambda: answer["ptr"] + ".",
        "MX": lambda: f"{answer['mx']['preference']} {answer['mx']['exchange']}.",
        "TXT": lambda: " ".join(f'"{text}"' for text in answer["txts"]),
    }
    return f"{answer['name']}.", answer["type"], data[answer["type"]]()


def test_every_question_is_there_with_its_answers(
    network: Network, live: Recorder, new_name: Callable[[], str]
) -> None:
    name = new_name()
    live.record(name, "http or dns")
    questions = (
        ("web.shop.test", "A"),
        ("web.shop.test", "AAAA"),
        (f"{name}.web.shop.test", "A"),
        ("www.shop.test", "A"),
        ("shop.test", "MX"),
        ("text.shop.test", "TXT"),
        ("long.shop.test", "TXT"),
        ("nothing.shop.test", "A"),
        ("8.7.99.10.in-addr.arpa", "PTR"),
    )
    asked: list[tuple[str, str, str, list[str]]] = []
    for question in questions:
        asked.append((*question, "udp", network.dig(*question)))
        asked.append((*question, "udp", network.dig(*question, host=SERVER6)))
        asked.append((*question, "tcp", network.dig(*question, "+tcp")))
    # Too long for a datagram without EDNS: dig asks again by TCP.
    by_both = network.dig("long.shop.test", "TXT", "+noedns")
    assert by_both
    asked += [("long.shop.test", "TXT", "udp", []), ("long.shop.test", "TXT", "tcp", by_both)]
    entries = live.wait_for(f'record("{name}") and dns', len(asked))

    def as_asked(entry: dict[str, Any]) -> tuple[str, str, str, tuple[tuple[str, ...], ...]]:
        [question] = entry["request"]["questions"]
        answers = tuple(sorted(map(record_of, entry["response"]["answers"])))
        return question["name"], question["type"], entry["transport"], answers

    def as_dug(line: str) -> tuple[str, ...]:
        owner, _, _, kind, data = line.split(maxsplit=4)
        return owner, kind, data

    assert sorted(map(as_asked, entries)) == sorted(
        (asked_name, kind, transport, tuple(sorted(map(as_dug, lines))))
        for asked_name, kind, transport, lines in asked
    )
    codes = {e["request"]["questions"][0]["name"]: e["response"]["code"] for e in entries}
    assert codes["nothing.shop.test"] == "NXDOMAIN"
    assert codes["web.shop.test"] == "NOERROR"
    assert live.ask(f'record("{name}") and !dns') == [], "and nothing else"
    live.stop_job(name)
