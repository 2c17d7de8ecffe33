"""Callers who leave, who are slow, or who send nothing; services that fail in the middle."""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import Iterator

import httpx
import pytest

from services.gateway import app, exchange
from services.gateway import gateway as gateway_module
from tests.unit.gateway.conftest import events, gateway, lines
from tests.unit.gateway.odd import Odd, odd


@pytest.fixture
def behind() -> Iterator[tuple[Odd, str]]:
    """An odd server, and the address of a gateway before it."""
    with odd() as (made, address), gateway(address, address, streams=2) as here:
        yield made, here


def url(address: str, path: str) -> str:
    return f"http://{address}/api/v1/{path}"


def raw(address: str, octets: bytes = b"") -> socket.socket:
    host, _, port = address.rpartition(":")
    made = socket.create_connection((host, int(port)), timeout=30)
    made.sendall(octets)
    return made


def test_a_caller_who_leaves_ends_a_stream(behind: tuple[Odd, str]) -> None:
    made, address = behind
    with httpx.stream("GET", url(address, "query?kfl=wait")) as response:
        read = response.iter_lines()
        next(read)
        assert not made.ended.is_set()
    assert made.ended.wait(30)


def test_a_caller_who_leaves_ends_a_call(behind: tuple[Odd, str]) -> None:
    made, address = behind
    with pytest.raises(httpx.ReadTimeout):
        httpx.get(url(address, "recordings"), timeout=0.5)
    assert made.ended.wait(30)


def test_a_reader_who_takes_nothing_is_cut_off(
    behind: tuple[Odd, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exchange, "SLOW_SECONDS", 0.3)
    made, address = behind
    with raw(address, b"GET /api/v1/query?kfl=flood HTTP/1.1\r\nHost: localhost\r\n\r\n") as reader:
        assert made.ended.wait(30)
        # What was on the way may still come; the last chunk of an answer does not.
        assert not until_closed(reader).endswith(b"0\r\n\r\n")


def until_closed(reader: socket.socket) -> bytes:
    """Return what comes until the other side closes or breaks the connection."""
    found = b""
    with contextlib.suppress(ConnectionResetError):
        while octets := reader.recv(1 << 16):
            found = (found + octets)[-(1 << 16) :]
    return found


@pytest.mark.parametrize(
    ("octets", "answers"),
    [
        (b"", 0),
        (b"GET / HTTP/1.1\r\nHost: lo", 0),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\nGET /", 1),
    ],
)
def test_a_head_that_does_not_come_is_not_waited_for(
    octets: bytes, answers: int, behind: tuple[Odd, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app, "HEAD_SECONDS", 0.3)
    with raw(behind[1], octets) as caller:
        assert until_closed(caller).count(b"HTTP/1.1 ") == answers


def test_a_body_that_does_not_come_is_not_waited_for(
    behind: tuple[Odd, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exchange, "BODY_SECONDS", 0.3)
    head = b"POST /api/v1/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n{"
    with raw(behind[1], head) as caller:
        assert caller.recv(4096).startswith(b"HTTP/1.1 408 ")


@pytest.mark.parametrize(
    "octets",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"GET / HTTP/1.1\r\nTransfer-Encoding: x\r\nHost: a\r\n\r\n",
    ],
)
def test_what_is_not_http_is_a_problem(octets: bytes, behind: tuple[Odd, str]) -> None:
    with raw(behind[1], octets) as caller:
        head, _, body = until_closed(caller).partition(b"\r\n\r\n")
    assert head.split(b" ")[1] in (b"400", b"501")
    assert json.loads(body)["code"] == "INVALID_ARGUMENT"


def test_a_head_without_end_is_not_taken(behind: tuple[Odd, str]) -> None:
    with raw(behind[1], b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"y" * 70_000) as caller:
        assert until_closed(caller)[:13] in (b"", b"HTTP/1.1 400 ")


def test_there_are_so_many_connections_and_no_more(
    behind: tuple[Odd, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app, "MAX_CONNECTIONS", 1)
    with raw(behind[1]), raw(behind[1]) as second:
        assert until_closed(second) == b""


def test_there_are_so_many_streams_and_no_more(behind: tuple[Odd, str]) -> None:
    made, address = behind
    with (
        httpx.stream("GET", url(address, "query?kfl=wait")),
        httpx.stream("GET", url(address, "query?kfl=wait")),
    ):
        refused = httpx.get(url(address, "query?kfl=wait"))
        assert refused.status_code == 429
        assert "2 streams" in refused.json()["detail"]
        assert not made.ended.is_set()


def test_what_fails_in_the_middle_says_so_at_the_end(behind: tuple[Odd, str]) -> None:
    address = url(behind[1], "query?kfl=fail")
    entry, last = lines(httpx.get(address))
    assert entry == {"entry": {"n": 1}}
    assert last["error"]["code"] == "DATA_LOSS"
    assert last["error"]["detail"] == "A file is damaged."
    told = events(httpx.get(address, headers={"accept": "text/event-stream"}).text)
    assert [name for name, _ in told] == ["entry", "error"]


@pytest.mark.parametrize("path", ["export?kfl=a", "query?kfl=fail"])
def test_a_file_that_is_not_whole_is_a_broken_connection(
    path: str, behind: tuple[Odd, str]
) -> None:
    accept = {"accept": "application/vnd.apache.arrow.stream, application/x-pcapng"}
    with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):
        httpx.get(url(behind[1], path), headers=accept)


def test_events_that_are_far_apart_have_comments_between_them(
    behind: tuple[Odd, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gateway_module, "IDLE_SECONDS", 0.1)
    accept = {"accept": "text/event-stream"}
    with httpx.stream("GET", url(behind[1], "query?kfl=wait"), headers=accept) as response:
        read = response.iter_lines()
        assert next(read) == "event: entry"
        while next(read) != ":":
            pass


def test_a_deadline_is_passed_on(behind: tuple[Odd, str]) -> None:
    made, address = behind
    response = httpx.get(url(address, "recordings"), headers={"grpc-timeout": "300m"}, timeout=30)
    assert response.status_code == 504
    assert made.seconds is not None
    assert made.seconds <= 0.3


def test_a_call_has_a_deadline_in_any_case(behind: tuple[Odd, str]) -> None:
    made, address = behind
    made.go.set()
    httpx.get(url(address, "recordings"), headers={"grpc-timeout": "9H"})
    assert made.seconds is not None
    assert made.seconds <= 60


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("not_found", 404),
        ("already_exists", 409),
        ("resource_exhausted", 429),
        ("failed_precondition", 400),
        ("permission_denied", 403),
        ("unimplemented", 501),
        ("internal", 500),
        ("data_loss", 500),
        ("cancelled", 499),
    ],
)
def test_a_status_of_grpc_is_one_of_http(code: str, status: int, behind: tuple[Odd, str]) -> None:
    response = httpx.get(url(behind[1], f"jobs/{code}"))
    assert response.status_code == status
    assert response.json()["code"] == code.upper()
    assert response.json()["detail"] == "Said so."
