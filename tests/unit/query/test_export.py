import io
import json
import subprocess
from decimal import Decimal
from pathlib import Path
from typing import Any

import grpc
import jsonschema
import pyarrow.parquet as pq
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


def export(stub: Any, kfl: str, format: int = 0) -> bytes:
    parts = stub.Export(query_pb2.ExportRequest(kfl=kfl, format=format))
    return b"".join(part.chunk for part in parts)


def told(stub: Any, kfl: str, format: int = 0) -> query_pb2.ExportSummary:
    """What the last message says."""
    *_, last = stub.Export(query_pb2.ExportRequest(kfl=kfl, format=format))
    assert not last.chunk
    return last.summary


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
    assert rdpcap(io.BytesIO(octets))[0].comments == [
        f"recordings one, two, stream {A}, checkout to cart".encode()
    ]


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


def test_it_is_told_what_is_in_the_file_and_what_is_missing(streams: Any, stub: Any) -> None:
    found = told(stub, 'record("web") and response.status == 500')
    assert (found.entries, found.streams, found.packets) == (2, 2, 6)
    assert [loss.kind for loss in found.account.losses] == ["gap"]
    assert found.account.status.recordings == ["web"]


def test_it_is_told_when_nothing_matches_or_no_packets_are_there(streams: Any, stub: Any) -> None:
    nothing = told(stub, 'record("web") and response.status == 404')
    assert (nothing.entries, nothing.packets) == (0, 0)
    streams.run("bare").append(entries=[{}])
    bare = told(stub, 'record("bare")')
    assert (bare.entries, bare.streams, bare.packets) == (1, 0, 0)


def test_the_share_of_the_file_grows_to_all_of_it(disk: Any, stub: Any) -> None:
    start = disk.start_ns
    rows = [
        {"stream": A, "time": start + i * 1000, "frame": frame(1001, i, 900)} for i in range(3000)
    ]
    entries = [{"stream": A, "start_time": start}, {"stream": A, "start_time": start + 3_000_000}]
    disk.run("big").append(entries=entries, packets=rows)
    shares = [part.share for part in stub.Export(query_pb2.ExportRequest(kfl='record("big")'))]
    assert shares == sorted(shares)
    assert 0 < shares[0] < 0.5
    assert shares[-1] == 1


def test_a_limit_that_cuts_is_told(streams: Any, stub: Any) -> None:
    assert told(stub, 'record("web") and limit(1)').account.status.truncated
    assert not told(stub, 'record("web") and limit(4)').account.status.truncated


def test_a_format_that_there_is_not_is_refused(streams: Any, stub: Any) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        export(stub, 'record("web")', 99)
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT


# ------------------------------------------------------------------------------ pcap


def test_a_pcap_has_the_same_packets(streams: Any, stub: Any) -> None:
    kfl = 'record("web") and response.status == 500'
    octets = export(stub, kfl, query_pb2.EXPORT_FORMAT_PCAP)
    assert idents(octets) == idents(export(stub, kfl))
    found = rdpcap(io.BytesIO(octets))
    assert Decimal(str(found[1].time)) == Decimal(streams.start_ns + 5) / 10**9


def test_a_pcap_without_packets_can_be_opened(streams: Any, stub: Any) -> None:
    octets = export(stub, 'record("web") and dns', query_pb2.EXPORT_FORMAT_PCAP)
    assert list(rdpcap(io.BytesIO(octets))) == []


def test_a_pcap_of_several_link_types_is_refused_before_its_first_octet(
    disk: Any, stub: Any
) -> None:
    start = disk.start_ns
    disk.run("web").append(
        entries=[{"stream": A}],
        packets=packets(start, A, 1001, [0]) + packets(start, A, 1001, [1], link_type=101),
    )
    parts = stub.Export(
        query_pb2.ExportRequest(kfl='record("web")', format=query_pb2.EXPORT_FORMAT_PCAP)
    )
    with pytest.raises(grpc.RpcError, match="link types 1, 101") as caught:
        next(parts)
    assert caught.value.code() == grpc.StatusCode.FAILED_PRECONDITION


# ------------------------------------------------------------------------------ entries

SCHEMA = json.loads((Path(__file__).parent / "har12.schema.json").read_text())


def har(stub: Any, kfl: str) -> list[dict[str, Any]]:
    """The entries of a file that is a HAR 1.2."""
    found = json.loads(export(stub, kfl, query_pb2.EXPORT_FORMAT_HAR))
    checker = jsonschema.Draft202012Validator.FORMAT_CHECKER
    jsonschema.Draft202012Validator(SCHEMA, format_checker=checker).validate(found)
    return found["log"]["entries"]


def test_a_har_has_what_the_entry_has(disk: Any, stub: Any) -> None:
    headers = [
        {"name": "Host", "value": "cart.shop:8080"},
        {"name": "Cookie", "value": "a=1; b=2; a=3"},
        {"name": "Content-Type", "value": "application/json"},
    ]
    answer = [
        {"name": "Content-Type", "value": "text/html"},
        {"name": "Location", "value": "/there"},
        {"name": "Set-Cookie", "value": "c=4; Path=/"},
    ]
    row = {
        "request_method": "POST",
        "request_url": "/api/cart?id=7&id=8&q=%20",
        "request_headers": headers,
        "request_body": '{"n":1}',
        "response_headers": answer,
        "response_body": "YmluYXJ5",
        "response_body_base64": True,
        "response_body_size": 6,
    }
    disk.run("web").append(entries=[row])
    (found,) = har(stub, 'record("web")')
    assert found["startedDateTime"] == "2025-11-22T23:12:00.123456789Z"
    assert found["time"] == found["timings"]["wait"] == 12.431
    assert found["serverIPAddress"] == "10.96.0.50"
    request, response = found["request"], found["response"]
    assert request["url"] == "http://cart.shop:8080/api/cart?id=7&id=8&q=%20"
    assert request["queryString"] == [
        {"name": "id", "value": "7"},
        {"name": "id", "value": "8"},
        {"name": "q", "value": " "},
    ]
    assert [each["value"] for each in request["cookies"]] == ["1", "3", "2"]
    assert request["postData"] == {"mimeType": "application/json", "text": '{"n":1}'}
    assert (response["status"], response["redirectURL"]) == (500, "/there")
    assert response["cookies"] == [{"name": "c", "value": "4"}]
    content = response["content"]
    assert (content["mimeType"], content["size"]) == ("text/html", 6)
    assert (content["text"], content["encoding"]) == ("YmluYXJ5", "base64")


ODD_ROWS = [
    {"request": None, "request_method": None, "request_url": None, "request_path": None,
     "request_headers": None, "request_http_version": None, "elapsed_us": None,
     "error_type": "pair-not-found"},
    {"response": None, "response_status": None, "response_headers": None, "response_body": None,
     "error_type": "timeout", "error_msg": "No answer."},
    {"request_url": "http://proxied.example/a#b", "tls": True},
    {"request_url": "*", "request_method": "OPTIONS"},
    {"request_url": "db.example:443", "request_method": "CONNECT"},
    {"request_url": "/ü \"<>\\^`{|}\u0007", "request_headers": [{"name": "Host", "value": "a b/"}]},
    {"dst_ip": "", "dst_port": None, "request_headers": []},
    {"dst_ip": "fd00::1", "request_headers": None, "elapsed_us": -5},
    {"response_headers": [{"name": "X", "value": "1"}, {"name": "x", "value": "2"}]},
]  # fmt: skip


@pytest.mark.parametrize("row", ODD_ROWS)
def test_a_har_of_odd_calls_is_one_all_the_same(disk: Any, stub: Any, row: Any) -> None:
    disk.run("web").append(entries=[row])
    assert len(har(stub, 'record("web")')) == 1


def test_a_har_has_calls_of_http_only_in_the_order_of_time(disk: Any, stub: Any) -> None:
    start = disk.start_ns
    rows = [
        {
            "start_time": start + (i * 7 % 50) * 10**6,
            "protocol_name": "dns" if i % 5 == 0 else "http",
            "request_url": f"/{i * 7 % 50:02}",
        }
        for i in range(50)
    ]
    disk.run("web").append(entries=rows)
    urls = [each["request"]["url"][-2:] for each in har(stub, 'record("web") // all')]
    assert urls == sorted(urls)
    assert len(urls) == 40
    assert told(stub, 'record("web")', query_pb2.EXPORT_FORMAT_HAR).entries == 40


def test_a_har_of_nothing_is_a_har(disk: Any, stub: Any) -> None:
    disk.run("web").append(entries=[{"protocol_name": "dns"}])
    assert har(stub, 'record("web")') == []


def test_lines_are_the_entries_of_a_query(streams: Any, stub: Any) -> None:
    kfl = 'record("web") and response.status == 500'
    lines = export(stub, kfl, query_pb2.EXPORT_FORMAT_JSON_LINES).decode().splitlines()
    asked = query_pb2.QueryRequest(kfl=kfl, format=query_pb2.ENTRY_FORMAT_JSON)
    assert lines == [part.json for part in stub.Query(asked) if part.WhichOneof("part") == "json"]


def test_parquet_is_a_table_with_the_recording_and_the_ledger(streams: Any, stub: Any) -> None:
    kfl = 'record("web") and response.status == 500'
    table = pq.read_table(io.BytesIO(export(stub, kfl, query_pb2.EXPORT_FORMAT_PARQUET)))
    assert table.select(["record", "stream", "response_status"]).to_pylist() == [
        {"record": "web", "stream": A, "response_status": 500},
        {"record": "web", "stream": C, "response_status": 500},
    ]
    assert table["start_time"].cast("int64").to_pylist() == [streams.start_ns] * 2
    comment = table.schema.metadata[b"recorder"].decode()
    assert kfl in comment
    assert "gap in web on node-1" in comment


def test_parquet_of_nothing_is_an_empty_table(streams: Any, stub: Any) -> None:
    octets = export(stub, 'record("web") and dns', query_pb2.EXPORT_FORMAT_PARQUET)
    assert pq.read_table(io.BytesIO(octets)).num_rows == 0


@pytest.mark.parametrize("format", [3, 4, 5])
@pytest.mark.parametrize(
    "path", ["response.body", "request.headers", "request", "dst.ip", "request.url", "error"]
)
def test_redacted_values_are_in_no_file_of_entries(
    disk: Any, stub: Any, format: int, path: str
) -> None:
    row = {
        "response_body": "s3cret",
        "request_headers": [{"name": "Host", "value": "s3cret"}],
        "request_url": "/s3cret",
        "request_path": "/s3cret",
        "dst_ip": "fd00::5ec",
        "error_type": "timeout",
        "error_msg": "s3cret",
    }
    disk.run("web").append(entries=[row])
    kept = {
        "response.body": b"/s3cret",
        "request.headers": b"/s3cret",
        "request": b"fd00::5ec",
        "dst.ip": b"/s3cret",
        "request.url": b"fd00::5ec",
        "error": b"/s3cret",
    }
    octets = export(stub, f'record("web") and redact("{path}")', format)
    if format == query_pb2.EXPORT_FORMAT_PARQUET:
        octets = str(pq.read_table(io.BytesIO(octets)).to_pylist()).encode()
    assert kept[path] in octets
    gone = b"fd00::5ec" if path == "dst.ip" else b"s3cret"
    everything = '"response.body","request","error"'
    assert gone not in export(stub, f'record("web") and redact("dst.ip",{everything})', 5)


# ------------------------------------------------------------------------------ tshark


def test_names_of_addresses_are_in_the_file(disk: Any, stub: Any) -> None:
    kube = {"src_namespace": "shop", "src_pod": "checkout-7c9f", "dst_namespace": "shop"}
    disk.run("web").append(
        entries=[{"stream": A, **kube}],
        streams=[
            {"stream": A, "called_ip": "10.96.0.99", "called_port": 80, "server_ip": "10.96.0.50"}
        ],
        packets=packets(disk.start_ns, A, 1001, [0]),
    )
    octets = export(stub, 'record("web")')
    assert b"\x0a\xf4\x00\x09checkout.shop\0checkout-7c9f.shop\0" in octets
    assert b"\x0a\x60\x00\x32cart.shop\0" in octets
    # What the client called is in the packets, and has the name of what answered.
    assert b"\x0a\x60\x00\x63cart.shop\0" in octets
    (packet,) = rdpcap(io.BytesIO(octets))
    assert b"checkout.shop (checkout-7c9f.shop) to cart.shop" in packet.comments[0]


@pytest.mark.tshark
def test_tshark_reads_names_comments_and_the_ledger(
    streams: Any, stub: Any, tmp_path: Path
) -> None:
    path = tmp_path / "web.pcapng"
    path.write_bytes(export(stub, 'record("web") and response.status == 500'))
    command = ["tshark", "-r", str(path), "-T", "fields"]
    for field in ("frame.interface_name", "tcp.srcport", "frame.comment"):
        command += ["-e", field]
    said = subprocess.run(command, capture_output=True, text=True, check=True)
    lines = [line.split("\t") for line in said.stdout.splitlines()]
    assert lines[0] == ["node-1", "1001", f"recording web, stream {A}, checkout to cart"]
    assert lines[1] == ["node-2", "1003", f"recording web, stream {C}, checkout to cart"]
    assert lines[2][2] == ""
    capinfos = subprocess.run(
        ["capinfos", "-k", "-I", str(path)], capture_output=True, text=True, check=False
    )
    assert "gap in web on node-1" in capinfos.stdout
    assert "nanoseconds" in capinfos.stdout
