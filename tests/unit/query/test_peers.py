"""Who calls whom, and streams, against a plain evaluation in Python."""

from typing import Any

import pytest
from recorder.v1 import query_pb2

from tests.unit.query.generated import (
    STATEMENTS,
    expected,
    figures_of,
    grouped,
    question,
)


def _peer(each: Any) -> tuple[str, str, str]:
    name = each["name"]
    return (name, each["namespace"], "") if name else ("", "", each["ip"])


@pytest.mark.parametrize("text", STATEMENTS)
def test_a_map_is_what_counting_gives(mixed: Any, text: str) -> None:
    found = mixed.stub.ServiceMap(query_pb2.ServiceMapRequest(question=question(text), limit=5000))
    told = {
        (*((p.name, p.namespace, p.ip) for p in (edge.src, edge.dst)), edge.protocol): figures_of(
            edge.figures
        )
        for edge in found.edges
    }
    counted = expected(mixed.entries, text)
    assert told == grouped(
        counted, lambda e: [(_peer(e["src"]), _peer(e["dst"]), e["protocol"]["abbr"])]
    )
    assert found.account.status.entries == len(counted)


@pytest.mark.parametrize("text", STATEMENTS)
def test_connections_are_what_counting_gives(mixed: Any, text: str) -> None:
    found = mixed.stub.Connections(query_pb2.ConnectionsRequest(question=question(text)))
    counted = expected(mixed.entries, text)
    told = {(c.recording, c.node, c.stream): c for c in found.connections}
    plain = grouped(counted, lambda e: [(e["record"], e["node"]["name"], e["stream"])])
    assert {key: figures_of(each.figures) for key, each in told.items()} == plain
    for key, connection in told.items():
        mine = [e for e in counted if (e["record"], e["node"]["name"], e["stream"]) == key]
        first = min(mine, key=lambda e: (e["index"], e["start_ns"]))
        begin = min(e["start_ns"] // 1000 for e in mine)
        end = max(e["start_ns"] // 1000 + (e["elapsedTimeUs"] or 0) for e in mine)
        assert connection.start_time.ToMicroseconds() == begin
        assert connection.duration_us == end - begin
        assert list(connection.protocols) == sorted({e["protocol"]["abbr"] for e in mine})
        assert (connection.src.name, connection.src.ip) == (
            first["src"]["name"],
            first["src"]["ip"],
        )
        octets = sum(e["requestSize"] or 0 for e in mine)
        rate = octets * 1e6 / (end - begin) if end > begin else 0.0
        assert connection.request_bytes_per_second == pytest.approx(rate)


def test_a_connection_begins_with_its_first_packet_and_has_its_state(disk: Any, stub: Any) -> None:
    run = disk.run("conns")
    start = disk.start_ns // 1000 * 1000
    sides = {"request": '{"state":"closed","bytes":10}', "response": None}
    run.append(
        entries=[
            {
                **dict.fromkeys(("request_method", "request_url", "request_path"), None),
                **{"protocol_name": "tcp", "protocol_abbr": "TCP", "start_time": start},
                **{"elapsed_us": 2_000_000, "request_size": 10, "response_size": 40, **sides},
            }
        ],
        streams=[{"first_time": start - 3_000_000_000}],
    )
    asked = query_pb2.ConnectionsRequest(question=question('record("conns") and conn'))
    (found,) = stub.Connections(asked).connections
    assert (found.state, list(found.protocols)) == ("closed", ["TCP"])
    assert found.start_time.ToNanoseconds() == start - 3_000_000_000
    assert found.duration_us == 5_000_000
    assert (found.request_bytes_per_second, found.response_bytes_per_second) == (2.0, 8.0)
