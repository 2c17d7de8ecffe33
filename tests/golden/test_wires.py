"""Recorded clients and servers of TLS, HTTP/2, gRPC and QUIC, and of what begins as another
protocol (WebSocket, h2c, proxies, STARTTLS, GraphQL): what they said they did is what we read.

The expectations lie beside the captures, and say how these were recorded.
"""

import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

import kfl
from recordings.entry import objects
from services.capture.dissect import tables

FOLDER = Path(__file__).parent / "captures"
ABBRS = {
    "tls-openssl": "TLS",
    "quic-aioquic": "TLS",
    "http2-nginx": "HTTP/2",
    "grpc-python": "gRPC",
}

AS_ANOTHER = {  # how often the calls of the expectation were made
    "websocket-python": 1,
    "h2c-nghttpx": 1,
    "connect-tinyproxy": 1,
    "starttls-postgresql": 1,
    "graphql-core": 2,
}


def lacks(found: Any, wanted: Any) -> bool:
    """Whether something that is wanted is not there, or is otherwise."""
    if isinstance(wanted, dict) and isinstance(found, dict):
        return any(lacks(found.get(key), value) for key, value in wanted.items())
    if isinstance(wanted, list) and isinstance(found, list) and len(wanted) == len(found):
        return any(map(lacks, found, wanted))
    return bool(found != wanted)


@pytest.mark.parametrize("name", ABBRS)
def test_what_was_done_is_what_is_read(name):
    wanted = yaml.safe_load((FOLDER / f"{name}.yaml").read_text())["calls"]
    found = [
        each for table in tables(FOLDER / f"{name}.pcap", None, 1 << 16) for each in objects(table)
    ]
    assert [each["protocol"]["abbr"] for each in found] == [ABBRS[name]] * len(wanted)
    for number, (each, call) in enumerate(zip(found, wanted, strict=True)):
        assert not lacks(each, call), (number, call, each)


@pytest.mark.parametrize(("name", "times"), AS_ANOTHER.items())
def test_what_begins_as_another_protocol_is_read(name, times):
    wanted = yaml.safe_load((FOLDER / f"{name}.yaml").read_text())["calls"] * times
    found = [
        each for table in tables(FOLDER / f"{name}.pcap", None, 1 << 16) for each in objects(table)
    ]
    assert len(found) == len(wanted)
    for number, (each, call) in enumerate(zip(found, wanted, strict=True)):
        assert not lacks(each, call), (number, call, each)


@pytest.mark.parametrize(
    ("name", "word", "many"),
    [
        ("websocket-python", "ws", 32),
        ("websocket-python", "http", 34),
        ("websocket-python", "http and not ws", 2),
        ("h2c-nghttpx", "http2", 6),
        ("h2c-nghttpx", "gqlv2", 1),
        ("h2c-nghttpx", "gqlv1", 0),
        ("graphql-core", "graphql", 12),
        ("graphql-core", "gqlv1", 6),
        ("connect-tinyproxy", "tls", 1),
        ("starttls-postgresql", "tls or postgresql", 2),
    ],
)
def test_words_find_what_begins_as_another_protocol(name, word, many):
    found = tables(FOLDER / f"{name}.pcap", kfl.compile(word), 1 << 16)
    assert sum(table.num_rows for table in found) == many


@pytest.mark.tshark
@pytest.mark.parametrize(("name", "dissector"), [("tls-openssl", "tls"), ("quic-aioquic", "quic")])
def test_hellos_are_what_tshark_says(name, dissector):
    path = FOLDER / f"{name}.pcap"
    ports = [
        f"{'tcp' if dissector == 'tls' else 'udp'}.port=={port}"
        for port in (4433, 4434, 4443, 4444)
    ]
    fields = ["extensions_server_name", "ja3"]
    run = ["tshark", "-r", path, "-Y", "tls.handshake.type == 1", "-T", "fields"]
    run += [word for port in ports for word in ("-d", f"{port},{dissector}")]
    run += [word for each in fields for word in ("-e", f"tls.handshake.{each}")]
    shown = subprocess.run(run, capture_output=True, text=True, check=True).stdout
    theirs = {tuple(line.split("\t")) for line in shown.splitlines()}
    hellos = [each["request"] for table in tables(path, None, 0) for each in objects(table)]
    assert {(each["sni"], each["ja3"]) for each in hellos} == theirs
