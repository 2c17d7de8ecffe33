import io
import subprocess
from decimal import Decimal
from pathlib import Path
from typing import Any

import grpc
import pytest
from recorder.v1 import query_pb2
from scapy.layers.inet import IP, TCP
from scapy.layers.l2 import Ether
from scapy.utils import rdpcap

A, B, C = "00000000000000a1", "00000000000000b2", "00000000000000c3"


def frame(sport: int, number: int, pad: int = 0) -> bytes:
    ip = IP(src="10.0.0.1", dst="10.0.0.2", id=number)
    return bytes(Ether() / ip / TCP(sport=sport, dport=80, flags="PA") / (b"x" * pad))


def packets(start: int, stream: str, sport: int, times: list[int], **fields: Any) -> list[Any]:
    return [
        {
            "stream": stream,
            "time": start + time,
            "frame": frame(sport, number),
            "original_length": len(frame(sport, number)),
            **fields,
        }
        for number, time in enumerate(times)
    ]


def export(stub: Any, kfl: str) -> bytes:
    return b"".join(part.chunk for part in stub.Export(query_pb2.ExportRequest(kfl=kfl)))


def idents(octets: bytes) -> list[tuple[int, int]]:
    return [(p[TCP].sport, p[IP].id) for p in rdpcap(io.BytesIO(octets))]


@pytest.fixture
def streams(disk: Any) -> Any:
    """Three streams of the recording web: a and c have a failing call, b has none."""
    start = disk.start_ns
    run = disk.run("web")
    run.append(
        streams=[{"stream": A}, {"stream": B}],
        entries=[
            {"stream": A, "index": 0, "response_status": 200},
            {"stream": A, "index": 1, "response_status": 500},
            {"stream": B, "response_status": 200},
        ],
        packets=packets(start, A, 1001, [0, 10, 2001]) + packets(start, B, 1002, [1, 11]),
    )
    run.turn()
    run.append(
        streams=[{"stream": C, "node_name": "node-2"}],
        entries=[{"stream": C, "node_name": "node-2", "response_status": 500}],
        packets=packets(start, C, 1003, [5, 2000, 2002], node_name="node-2")
        + packets(start, A, 1001, [], node_name="node-1"),
        losses=[{"stream": A, "kind": "gap", "packets": 0, "bytes": 7}],
    )
    return disk


def test_whole_streams_of_matching_entries_in_the_order_of_time(streams: Any, stub: Any) -> None:
    octets = export(stub, 'record("web") and response.status == 500')
    assert idents(octets) == [(1001, 0), (1003, 0), (1001, 1), (1003, 1), (1001, 2), (1003, 2)]
    first = rdpcap(io.BytesIO(octets))[0]
    assert Decimal(str(first.time)) == Decimal(streams.start_ns) / 10**9


def test_a_stream_in_which_nothing_matches_is_not_there(streams: Any, stub: Any) -> None:
    octets = export(stub, 'record("web") and src.port == 45168 and node.name == "node-2"')
    assert idents(octets) == [(1003, 0), (1003, 1), (1003, 2)]


def test_nothing_that_matches_is_a_file_without_packets(streams: Any, stub: Any) -> None:
    octets = export(stub, 'record("web") and response.status == 404')
    assert octets
    assert idents(octets) == []


def test_one_interface_for_each_node_and_link_type(disk: Any, stub: Any) -> None:
    start = disk.start_ns
    disk.run("web").append(
        entries=[{"stream": A}],
        packets=packets(start, A, 1001, [0])
        + packets(start, A, 1001, [1], link_type=101, frame=frame(1001, 7)[14:])
        + packets(start, A, 1001, [2]),
    )
    found = rdpcap(io.BytesIO(export(stub, 'record("web")')))
    assert [type(packet) for packet in found] == [Ether, IP, Ether]


def test_packets_of_one_time_keep_the_order_in_which_they_came(disk: Any, stub: Any) -> None:
    run = disk.run("web")
    times = [0] * 50
    run.append(entries=[{"stream": A}], packets=packets(disk.start_ns, A, 1001, times))
    assert idents(export(stub, 'record("web")')) == [(1001, number) for number in range(50)]
    run.turn()
    assert idents(export(stub, 'record("web")')) == [(1001, number) for number in range(50)]


def test_a_stream_of_two_recordings_is_there_once(disk: Any, stub: Any) -> None:
    twice = packets(disk.start_ns, A, 1001, [0, 1, 2])
    twice.insert(1, twice[0])  # on the wire twice
    disk.run("one").append(entries=[{"stream": A}], packets=twice)
    run = disk.run("two")
    run.append(entries=[{"stream": A}], packets=twice)
    run.turn()
    octets = export(stub, 'record("one") or record("two")')
    assert idents(octets) == [(1001, 0), (1001, 0), (1001, 1), (1001, 2)]
    assert rdpcap(io.BytesIO(octets))[0].comments == [f"recordings one, two, stream {A}".encode()]


def test_a_stream_that_went_on_in_the_next_run_is_whole_and_once(disk: Any, stub: Any) -> None:
    all_packets = packets(disk.start_ns, A, 1001, [0, 1, 2, 3])
    disk.run("days").append(entries=[{"stream": A}], packets=all_packets[:3])
    second = disk.run("days", 2)
    second.append(entries=[{"stream": A, "index": 1}], packets=all_packets[1:])
    octets = export(stub, 'record("days")')
    assert idents(octets) == [(1001, n) for n in range(4)]


def test_the_limit_counts_entries(streams: Any, stub: Any) -> None:
    octets = export(stub, 'record("web") and response.status == 500 and limit(1)')
    assert {sport for sport, _ in idents(octets)} <= {1001, 1003}
    assert len({sport for sport, _ in idents(octets)}) == 1


def test_packets_are_not_given_where_values_are_redacted(streams: Any, stub: Any) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        export(stub, 'record("web") and redact("response.body")')
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert "packets would show them" in caught.value.details()


@pytest.mark.parametrize("name", ["web/../web", "wob"])
def test_an_unknown_recording_is_refused(streams: Any, stub: Any, name: str) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        export(stub, f'record("{name}")')
    assert 'Did you mean "web"' in caught.value.details()


def test_a_large_file_comes_in_pieces(disk: Any, stub: Any) -> None:
    rows = [
        {"stream": A, "time": disk.start_ns + i, "frame": frame(1001, i, 900)} for i in range(3000)
    ]
    disk.run("big").append(entries=[{"stream": A}], packets=rows)
    parts = list(stub.Export(query_pb2.ExportRequest(kfl='record("big")')))
    assert len(parts) > 5
    found = idents(b"".join(part.chunk for part in parts))
    assert found == [(1001, number) for number in range(3000)]


@pytest.mark.tshark
def test_tshark_reads_names_comments_and_the_ledger(
    streams: Any, stub: Any, tmp_path: Path
) -> None:
    path = tmp_path / "web.pcapng"
    path.write_bytes(export(stub, 'record("web") and response.status == 500'))
    command = ["tshark", "-r", str(path), "-T", "fields"]
    for field in ("frame.interface_name", "tcp.srcport", "frame.comment"):
        command += ["-e", field]
    told = subprocess.run(command, capture_output=True, text=True, check=True)
    lines = [line.split("\t") for line in told.stdout.splitlines()]
    assert lines[0] == ["node-1", "1001", f"recording web, stream {A}"]
    assert lines[1] == ["node-2", "1003", f"recording web, stream {C}"]
    assert lines[2][2] == ""
    capinfos = subprocess.run(
        ["capinfos", "-k", "-I", str(path)], capture_output=True, text=True, check=False
    )
    assert "gap in web on node-1" in capinfos.stdout
    assert "nanoseconds" in capinfos.stdout
