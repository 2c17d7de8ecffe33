"""Recorded clients and servers of TLS, HTTP/2, gRPC and QUIC: what they said they did is what we
read. The expectations lie beside the captures, and say how these were recorded.
"""

from pathlib import Path
from typing import Any

import pytest
import yaml

from recordings.entry import objects
from services.capture.dissect import tables

FOLDER = Path(__file__).parent / "captures"
ABBRS = {
    "tls-openssl": "TLS",
    "quic-aioquic": "TLS",
    "http2-nginx": "HTTP/2",
    "grpc-python": "gRPC",
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
