# mypy: ignore-errors
"""Cut the octets of a TCP stream into DNS messages: two octets of length before each (RFC 7766)."""

from collections.abc import Iterable

import numpy as np

from services.capture.dissectors.dns.detect import looks_like_dns, may_begin_dns
from services.capture.dissectors.dns.entries import Dns
from services.capture.dissectors.dns.message import HEADER_SIZE
from services.capture.reassembly import DATA, GAP, IN_FRAMES

LENGTH_SIZE = 2
LONGEST_MESSAGE = 0xFFFF
MOST_BUFFERED = 1 << 24
"""Octets of begun messages of all connections together; a connection whose next segment would need
more loses its message, as after a gap. Without it each connection could hold 64 KB."""
LONGEST_BUFFER = LENGTH_SIZE + LONGEST_MESSAGE
"""Octets: a message that is one octet short is the most that ever waits, with those that come."""


class DnsStream:
    """One direction of a connection. No input or output."""

    __slots__ = ("_buffer", "_lost")

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._lost = False

    def receive(self, octets: bytes) -> list[bytes]:
        """Take the next segment; return the messages that it completes.

        After a gap, segments are dropped until one begins with a length and what looks like a
        message: a message that begins inside a segment cannot be told from the end of another.
        """
        if self._lost:
            if not begins_message(octets):
                return []
            self._lost = False
        self._buffer += octets
        messages = []
        position = 0
        while position + LENGTH_SIZE <= len(self._buffer):
            start = position + LENGTH_SIZE
            end = start + int.from_bytes(self._buffer[position:start], "big")
            if end > len(self._buffer):
                break
            messages.append(bytes(self._buffer[start:end]))
            position = end
        del self._buffer[:position]
        return messages

    @property
    def buffered(self) -> int:
        """Octets that wait for the rest of their message; fewer than LONGEST_BUFFER."""
        return len(self._buffer)

    def gap(self) -> None:
        """Octets are missing: forget the message that had begun, and look for the next one."""
        self._buffer.clear()
        self._lost = True


class DnsStreams:
    """The directions of all connections that carry DNS, between segments and Dns.take."""

    def __init__(self) -> None:
        self._streams: dict[int, DnsStream] = {}
        self._buffered = 0

    def begin_midstream(self, directions: Iterable[int]) -> None:
        """Look for the next message on these, of which octets have gone by unseen."""
        for direction in directions:
            self._gap(direction)

    def take(self, segments: np.ndarray, octets: np.ndarray, held: np.ndarray, dns: Dns) -> None:
        """Give the messages that the segments complete to `dns`.

        segments: rows of reassembly.SEGMENT, in their order, of connections that carry DNS; octets
        and held: uint8, the two places in which their octets lie.
        """
        messages: list[bytes] = []
        origins: list[tuple[int, int, int]] = []
        fields = ("timestamp", "position", "stream", "direction", "length", "kind", "place")
        columns = (segments[field].tolist() for field in fields)
        for timestamp, position, stream, direction, length, kind, place in zip(
            *columns, strict=True
        ):
            # By direction: a five-tuple used again says OPENED, and nothing of the stream before.
            key = direction
            if kind == DATA:
                source = octets if place == IN_FRAMES else held
                found = self._receive(key, source[position : position + length].tobytes())
                messages += found
                origins += [(timestamp, stream, direction & 1)] * len(found)
            elif kind == GAP:
                self._gap(key)
            else:
                self._forget(key)
        if messages:
            ends = np.cumsum([len(message) for message in messages])
            starts = ends - [len(message) for message in messages]
            timestamps, streams, directions = np.array(origins, np.int64).T
            joined = np.frombuffer(bytearray().join(messages), np.uint8)
            dns.take(joined, starts, ends, timestamps, streams, directions)

    def _stream(self, key: int) -> DnsStream:
        return self._streams.setdefault(key, DnsStream())

    def _receive(self, key: int, octets: bytes) -> list[bytes]:
        stream = self._stream(key)
        self._buffered -= stream.buffered
        if self._buffered + stream.buffered + len(octets) > MOST_BUFFERED:
            stream.gap()
        messages = stream.receive(octets)
        self._buffered += stream.buffered
        return messages

    def _gap(self, key: int) -> None:
        stream = self._stream(key)
        self._buffered -= stream.buffered
        stream.gap()

    def _forget(self, key: int) -> None:
        stream = self._streams.pop(key, None)
        if stream is not None:
            self._buffered -= stream.buffered


def begins_message(octets: bytes) -> bool:
    """Say whether a segment begins with a length and what looks like a DNS message."""
    if len(octets) < LENGTH_SIZE + HEADER_SIZE:
        return False
    length = int.from_bytes(octets[:LENGTH_SIZE], "big")
    message = np.frombuffer(bytearray(octets[LENGTH_SIZE : LENGTH_SIZE + length]), np.uint8)
    if length < HEADER_SIZE:
        return False
    if len(message) == length:
        return bool(looks_like_dns(message, 0, length))
    return bool(may_begin_dns(message, 0, len(message)))
