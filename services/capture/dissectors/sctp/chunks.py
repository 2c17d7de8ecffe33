"""Packets of SCTP as chunks: RFC 9260, section 3. Both conversations that it carries call this."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address
from typing import Any, NamedTuple

from services.capture.dissectors.conversation import ProtocolError

HEAD, CHUNK_HEAD, DATA_HEAD, INIT_HEAD = 12, 4, 16, 20  # octets
MOST_CHUNKS = 512  # of a packet; more than 375 do not fit into an Ethernet frame
MOST_PARAMETERS = 64  # of an INIT, which has one for each address

DATA, INIT, INIT_ACK, SACK, HEARTBEAT, HEARTBEAT_ACK, ABORT, SHUTDOWN = range(8)
SHUTDOWN_ACK, ERROR, COOKIE_ECHO, COOKIE_ACK = range(8, 12)
SHUTDOWN_COMPLETE, I_DATA = 14, 64
FIRST_FRAGMENT, LAST_FRAGMENT = 0x02, 0x01  # flags of DATA

# fmt: off
TYPES = {
    DATA: "DATA", INIT: "INIT", INIT_ACK: "INIT ACK", SACK: "SACK", HEARTBEAT: "HEARTBEAT",
    HEARTBEAT_ACK: "HEARTBEAT ACK", ABORT: "ABORT", SHUTDOWN: "SHUTDOWN",
    SHUTDOWN_ACK: "SHUTDOWN ACK", ERROR: "ERROR", COOKIE_ECHO: "COOKIE ECHO",
    COOKIE_ACK: "COOKIE ACK", 12: "ECNE", 13: "CWR", SHUTDOWN_COMPLETE: "SHUTDOWN COMPLETE",
    15: "AUTH", I_DATA: "I-DATA", 128: "ASCONF-ACK", 130: "RE-CONFIG", 132: "PAD",
    192: "FORWARD TSN", 193: "ASCONF", 194: "I-FORWARD-TSN",
}
CAUSES = {
    1: "invalid stream identifier", 2: "missing mandatory parameter", 3: "stale cookie",
    4: "out of resource", 5: "unresolvable address", 6: "unrecognized chunk type",
    7: "invalid mandatory parameter", 8: "unrecognized parameters", 9: "no user data",
    10: "cookie received while shutting down", 11: "restart with new addresses",
    12: "user-initiated abort", 13: "protocol violation",
}
PAYLOADS = {
    1: "IUA", 2: "M2UA", 3: "M3UA", 4: "SUA", 5: "M2PA", 6: "V5UA", 7: "H.248", 18: "S1AP",
    19: "RUA", 20: "HNBAP", 23: "SBc-AP", 24: "NBAP", 26: "X2AP", 27: "X2AP", 29: "LCS-AP",
    43: "LPPa", 44: "M2AP", 45: "M3AP", 46: "Diameter", 47: "Diameter in DTLS", 50: "WebRTC DCEP",
    51: "WebRTC text", 53: "WebRTC binary", 60: "NGAP", 61: "XnAP", 62: "F1AP", 64: "E1AP",
}
# fmt: on
"""https://www.iana.org/assignments/sctp-parameters"""
IPV4_ADDRESS, IPV6_ADDRESS = 5, 6


class Packet(NamedTuple):
    """A packet's common header."""

    verification_tag: int
    checksum: int


class Chunk(NamedTuple):
    """A chunk, whose value is at octets[begin:end] of its packet."""

    type: int
    flags: int
    length: int
    """As its header says, with the header."""
    begin: int
    end: int


class Data(NamedTuple):
    """A DATA chunk."""

    tsn: int
    stream: int
    sequence: int
    payload: int
    """Payload protocol identifier."""
    begin: int


def read_packet(octets: bytes) -> Packet:
    """Read the common header. Raises ProtocolError."""
    if len(octets) < HEAD:
        raise ProtocolError("a packet of SCTP has a header of 12 octets")
    return Packet(int.from_bytes(octets[4:8], "big"), int.from_bytes(octets[8:12], "big"))


def chunks(octets: bytes) -> Iterator[Chunk]:
    """Yield a packet's chunks; one that was not captured to its end is the last."""
    position = HEAD
    for _ in range(MOST_CHUNKS):
        if position + CHUNK_HEAD > len(octets):
            return
        length = int.from_bytes(octets[position + 2 : position + 4], "big")
        if length < CHUNK_HEAD:
            return
        end = min(position + length, len(octets))
        yield Chunk(octets[position], octets[position + 1], length, position + CHUNK_HEAD, end)
        position += length + -length % 4


def read_data(octets: bytes, chunk: Chunk) -> Data | None:
    """Return the head of a DATA chunk, None when it was not captured."""
    at = chunk.begin
    if chunk.end - at < DATA_HEAD - CHUNK_HEAD:
        return None
    numbers = octets[at : at + 12]
    return Data(
        int.from_bytes(numbers[:4], "big"), int.from_bytes(numbers[4:6], "big"),
        int.from_bytes(numbers[6:8], "big"), int.from_bytes(numbers[8:12], "big"), at + 12,
    )  # fmt: skip


def read_init(octets: bytes, chunk: Chunk) -> dict[str, Any]:
    """Return what an INIT or INIT ACK says, without its cookie; {} when it was not captured."""
    at = chunk.begin
    if chunk.end - at < INIT_HEAD - CHUNK_HEAD:
        return {}
    addresses = []
    position = at + 16
    for _ in range(MOST_PARAMETERS):
        if position + 4 > chunk.end:
            break
        kind = int.from_bytes(octets[position : position + 2], "big")
        length = int.from_bytes(octets[position + 2 : position + 4], "big")
        if length < 4 or position + length > chunk.end:
            break
        if (kind, length) in ((IPV4_ADDRESS, 8), (IPV6_ADDRESS, 20)):
            addresses.append(str(ip_address(octets[position + 4 : position + length])))
        position += length + -length % 4
    return {
        "initiateTag": int.from_bytes(octets[at : at + 4], "big"),
        "receiverWindow": int.from_bytes(octets[at + 4 : at + 8], "big"),
        "outboundStreams": int.from_bytes(octets[at + 8 : at + 10], "big"),
        "inboundStreams": int.from_bytes(octets[at + 10 : at + 12], "big"),
        "initialTSN": int.from_bytes(octets[at + 12 : at + 16], "big"),
        "addresses": addresses,
    }


def read_causes(octets: bytes, chunk: Chunk) -> list[str]:
    """Return the causes of an ABORT or ERROR."""
    found: list[str] = []
    position = chunk.begin
    while position + 4 <= chunk.end and len(found) < MOST_PARAMETERS:
        code = int.from_bytes(octets[position : position + 2], "big")
        length = int.from_bytes(octets[position + 2 : position + 4], "big")
        found.append(CAUSES.get(code, f"cause {code}"))
        if length < 4:
            break
        position += length + -length % 4
    return found
