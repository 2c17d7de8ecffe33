"""Write a small capture that makes each kernel run once; the Dockerfile has it dissected.

What the demo has: calls that are answered. What this adds: questions that nobody answers, DNS over
TCP, connections from before the capture, packets that are lost or come late, octets that are not
UTF-8, and both formats of capture files.

A kernel that was not compiled in the image would be compiled while an agent captures, which holds
it up for seconds.
"""

import struct
import sys
from collections.abc import Iterator
from pathlib import Path

MOST_OCTETS = 262144
ETHERNET = 1
CLIENT, SERVER = bytes([10, 0, 0, 1]), bytes([10, 0, 0, 2])
TCP, UDP = 6, 17
SYN, ACK, FIN = 0x02, 0x10, 0x01

STEP_MS = 1
LONG_MS = 3_600_000
"""Longer than anything waits for an answer, so that it is given up."""

# RFC 1035, section 4: a question for example.com, and an answer with one address.
QUESTION = b"\7example\3com\0" + struct.pack("!2H", 1, 1)
QUERY = struct.pack("!6H", 7, 0x0100, 1, 0, 0, 0) + QUESTION
ANSWER = (
    struct.pack("!6H", 7, 0x8180, 1, 1, 0, 0)
    + QUESTION
    + struct.pack("!3HIH", 0xC00C, 1, 1, 60, 4)
    + SERVER
)

REQUEST = (
    b"POST /caf\xe9?q=caf\xe9 HTTP/1.1\r\nHost: caf\xe9\r\nX-Name: caf\xe9\r\n"
    b"Content-Length: 4\r\n\r\ncaf\xe9"
)
RESPONSE = (
    b"HTTP/1.1 200 caf\xe9\r\nX-Name: caf\xe9\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"4\r\ncaf\xe9\r\n0\r\n\r\n"
)


def packets() -> Iterator[tuple[int, bytes]]:
    """Yield the time of each frame, in milliseconds, and its octets."""
    at = 0
    for frame in conversations():
        at += STEP_MS
        yield at, frame
    # All that waits is given up when the time of the last frame comes.
    yield at + LONG_MS, udp(50000, 53, QUERY)


def conversations() -> Iterator[bytes]:
    """Yield the frames of all conversations, one after the other."""
    yield udp(40000, 53, QUERY)
    yield udp(53, 40000, ANSWER, SERVER, CLIENT)
    yield udp(41000, 53, QUERY)  # never answered
    # RFC 7766: over TCP each message has its length before it.
    yield from connection(42000, 53, prefixed(QUERY), prefixed(ANSWER))
    # Connections from before the capture: with a whole message, and with the beginning of one.
    yield tcp(46000, 53, 1, 1, ACK, prefixed(QUERY))
    yield tcp(47000, 53, 1, 1, ACK, prefixed(QUERY + bytes(100))[:-100])
    yield from connection(43000, 80, REQUEST, RESPONSE)
    yield from connection(44000, 80, REQUEST, b"")
    yield from connection(45000, 80, REQUEST, RESPONSE, gap=100)


def prefixed(message: bytes) -> bytes:
    """Return a DNS message as it goes over TCP."""
    return struct.pack("!H", len(message)) + message


def connection(
    client: int, server: int, request: bytes, response: bytes, gap: int = 0
) -> Iterator[bytes]:
    """Yield a connection; before the response, `gap` octets of the server are lost."""
    yield tcp(client, server, 0, 0, SYN)
    yield tcp(server, client, 0, 1, SYN | ACK, b"", SERVER, CLIENT)
    yield tcp(client, server, 1, 1, ACK, request)
    mine, its = 1 + len(request), 1 + gap
    # In two halves, the second first.
    half = len(response) // 2
    for begin, end in ((half, len(response)), (0, half)):
        piece = response[begin:end]
        yield tcp(server, client, its + begin, mine, ACK, piece, SERVER, CLIENT)
    its += len(response)
    yield tcp(client, server, mine, its, ACK | FIN)
    yield tcp(server, client, its, mine + 1, ACK | FIN, b"", SERVER, CLIENT)
    yield tcp(client, server, mine + 1, its + 1, ACK)


def udp(
    source: int, target: int, data: bytes, sender: bytes = CLIENT, receiver: bytes = SERVER
) -> bytes:
    """Return a frame with a datagram (RFC 768); a checksum of 0 is none."""
    return ethernet(
        UDP, struct.pack("!4H", source, target, 8 + len(data), 0) + data, sender, receiver
    )


def tcp(
    source: int,
    target: int,
    sequence: int,
    acknowledged: int,
    flags: int,
    data: bytes = b"",
    sender: bytes = CLIENT,
    receiver: bytes = SERVER,
) -> bytes:
    """Return a frame with a TCP packet (RFC 9293); its checksum is left to the interface."""
    header = struct.pack(
        "!2H2I4H", source, target, sequence, acknowledged, 5 << 12 | flags, 65535, 0, 0
    )
    return ethernet(TCP, header + data, sender, receiver)


def ethernet(protocol: int, payload: bytes, sender: bytes, receiver: bytes) -> bytes:
    """Return an Ethernet frame with an IPv4 packet (RFC 791)."""
    header = struct.pack("!2B3H2BH", 0x45, 0, 20 + len(payload), 0, 0x4000, 64, protocol, 0)
    return bytes(12) + b"\x08\x00" + header + sender + receiver + payload


def write_pcap(path: Path) -> None:
    """Write draft-ietf-opsawg-pcap-04."""
    with path.open("wb") as file:
        file.write(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, MOST_OCTETS, ETHERNET))
        for at, frame in packets():
            seconds, milliseconds = divmod(at, 1000)
            length = len(frame)
            file.write(struct.pack("<4I", seconds, milliseconds * 1000, length, length) + frame)


def write_pcapng(path: Path) -> None:
    """Write draft-ietf-opsawg-pcapng-02: a section, an interface, enhanced packet blocks."""
    with path.open("wb") as file:
        file.write(block(0x0A0D0D0A, struct.pack("<IHHq", 0x1A2B3C4D, 1, 0, -1)))
        file.write(block(1, struct.pack("<HHI", ETHERNET, 0, MOST_OCTETS)))
        for at, frame in packets():
            microseconds = at * 1000
            head = struct.pack(
                "<5I", 0, microseconds >> 32, microseconds & 0xFFFFFFFF, len(frame), len(frame)
            )
            file.write(block(6, head + frame + bytes(-len(frame) % 4)))


def block(kind: int, body: bytes) -> bytes:
    """Return a block of a pcapng file."""
    length = struct.pack("<I", 12 + len(body))
    return struct.pack("<I", kind) + length + body + length


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    write_pcap(folder / "warmup.pcap")
    write_pcapng(folder / "warmup.pcapng")
