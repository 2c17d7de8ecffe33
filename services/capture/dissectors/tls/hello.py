"""What ClientHello and ServerHello say (RFC 8446, 4.1; RFC 5246, 7.4.1; RFC 6101, E.2)."""

import functools
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from services.capture.dissectors.conversation import ProtocolError
from services.capture.dissectors.tls import fingerprints
from services.capture.dissectors.tls.ciphersuites import cipher_suite
from services.capture.dissectors.tls.names import GREASE, group, version
from services.capture.dissectors.tls.reader import Reader, TruncatedError, numbers

# Extensions, RFC 8446, 4.2.
SERVER_NAME, GROUPS, POINT_FORMATS, SIGNATURES, ALPN = 0, 10, 11, 13, 16
PRE_SHARED_KEY, EARLY_DATA, SUPPORTED_VERSIONS, KEY_SHARE = 41, 42, 43, 51
RETRY_RANDOM = bytes.fromhex("cf21ad74e59a6111be1d8c021e65b891c2a211167abb8c5e079e09e2c8a8339c")
"""The random of a ServerHello that asks for another ClientHello (RFC 8446, 4.1.3)."""
RANDOM = 32  # octets
HOST_NAME = 0
OLD_SUITE = 3  # octets of a cipher suite in SSL 2.0's hello
LONGEST_NAME = 255  # octets of a host name that is shown, and of an ALPN name
MOST_KNOWN = 512  # kinds of hellos whose fingerprints are remembered: software says the same again
LONGEST_KNOWN = 512  # numbers in such a hello; others have a hundred

Json = dict[str, Any]


@dataclass(slots=True)
class ClientHello:
    """Numbers as they came, GREASE among them."""

    version: int = 0
    session: bytes = b""
    suites: tuple[int, ...] = ()
    extensions: list[int] = field(default_factory=list)
    sni: str = ""
    alpn: list[bytes] = field(default_factory=list)
    groups: tuple[int, ...] = ()
    formats: bytes = b""
    signatures: tuple[int, ...] = ()
    versions: tuple[int, ...] = ()
    is_whole: bool = True
    is_malformed: bool = False
    """What it announces goes beyond its end."""

    def shown(self, transport: str) -> Json:
        """Return it as an entry's request. transport: t for TCP, q for QUIC."""
        found: Json = {
            "sni": self.sni,
            "versions": [version(each) for each in self._offered() if each not in GREASE],
            "alpn": [text(name) for name in self.alpn if not _is_grease(name)],
            "cipherSuites": [cipher_suite(each) for each in self.suites if each not in GREASE],
            "supportedGroups": [group(each) for each in self.groups if each not in GREASE],
        }
        if EARLY_DATA in self.extensions:
            found["earlyData"] = True
        if self.is_whole:
            told = (
                transport, self.version, self.suites, tuple(self.extensions), self.groups,
                self.formats, self.signatures, self._offered(), self.alpn[0] if self.alpn else b"",
            )  # fmt: skip
            is_usual = sum(len(each) for each in told if not isinstance(each, int)) < LONGEST_KNOWN
            find = _fingerprints if is_usual else _fingerprints.__wrapped__
            found["ja3"], found["ja4"] = find(*told)
        return found

    def _offered(self) -> tuple[int, ...]:
        """Before TLS 1.3 a client says only the highest version that it knows."""
        return self.versions or (self.version,)


@dataclass(slots=True)
class ServerHello:
    """What the server chose."""

    version: int = 0
    """That of TLS 1.3 where the extension says so."""
    suite: int = 0
    alpn: str | None = None
    is_retry: bool = False
    is_resumed: bool = False
    """By a pre-shared key; before TLS 1.3 the messages that follow tell."""
    ja3s: str = ""

    def shown(self) -> Json:
        """Return it as an entry's response."""
        found: Json = {"version": version(self.version), "cipherSuite": cipher_suite(self.suite)}
        if self.alpn is not None:
            found["alpn"] = self.alpn
        if self.ja3s:
            found["ja3s"] = self.ja3s
        return found


@functools.lru_cache(MOST_KNOWN)
def _fingerprints(
    transport: str, version: int, suites: tuple[int, ...], extensions: tuple[int, ...],
    groups: tuple[int, ...], formats: bytes, signatures: tuple[int, ...],
    offered: tuple[int, ...], alpn: bytes,
) -> tuple[str, str]:  # fmt: skip
    """Return JA3 and JA4."""
    return (
        fingerprints.ja3(version, suites, extensions, groups, formats),
        fingerprints.ja4(transport, offered, suites, extensions, signatures, alpn),
    )


def _is_grease(name: bytes) -> bool:
    return len(name) == 2 and int.from_bytes(name, "big") in GREASE


def text(octets: bytes) -> str:
    """Return a name as it is shown: not all are ASCII, as they should be."""
    return octets[:LONGEST_NAME].decode("ascii", "backslashreplace")


def client_hello(message: bytes, is_whole: bool) -> ClientHello:
    """Read a ClientHello; as far as it was captured if not whole, and as far as its lengths agree
    with each other. Raises ProtocolError.
    """
    found = ClientHello(is_whole=is_whole)
    try:
        _read_client(Reader(message), found)
    except TruncatedError:
        if is_whole and not found.suites:
            raise ProtocolError("a ClientHello ends too early") from None
        found.is_malformed, found.is_whole = is_whole, False
    return found


def _read_client(reader: Reader, found: ClientHello) -> None:
    found.version = reader.number(2)
    if found.version >> 8 not in (3, 0x7F):
        raise ProtocolError("a ClientHello of no known version")
    reader.take(RANDOM)
    found.session = reader.vector(1)
    found.suites = numbers(_vector(reader, 2, found.is_whole))
    reader.vector(1)  # compression methods
    for kind, body in _extensions(reader, found.is_whole):
        found.extensions.append(kind)
        try:
            _read_extension(kind, Reader(body), found)
        except TruncatedError:  # this one is malformed; the others need not be
            continue


def _vector(reader: Reader, size: int, is_whole: bool) -> bytes:
    """Return a vector, or what was captured of it."""
    length = reader.number(size)
    return reader.take(length if is_whole else min(length, reader.left))


def _extensions(reader: Reader, is_whole: bool) -> Iterator[tuple[int, bytes]]:
    """Yield type and content of each. Raises TruncatedError, behind those that are there."""
    if not reader.left:  # a hello of SSL 3.0 may have none
        return
    inner = Reader(_vector(reader, 2, is_whole))
    while inner.left:
        yield inner.number(2), inner.vector(2)


def _read_extension(kind: int, body: Reader, found: ClientHello) -> None:
    if kind == SERVER_NAME:
        names = Reader(body.vector(2))
        while names.left and not found.sni:
            is_host = names.number(1) == HOST_NAME
            name = names.vector(2)
            found.sni = text(name) if is_host else ""
    elif kind == ALPN:
        names = Reader(body.vector(2))
        while names.left:
            found.alpn.append(names.vector(1))
    elif kind == GROUPS:
        found.groups = numbers(body.vector(2))
    elif kind == POINT_FORMATS:
        found.formats = body.vector(1)
    elif kind == SIGNATURES:
        found.signatures = numbers(body.vector(2))
    elif kind == SUPPORTED_VERSIONS:
        found.versions = numbers(body.vector(1))


def old_client_hello(message: bytes) -> ClientHello:
    """Read a hello in the form of SSL 2.0, which may offer later versions. Raises ProtocolError.

    message: what follows its type.
    """
    try:
        reader = Reader(message)
        highest = reader.number(2)
        suites, session, challenge = (reader.number(2) for _ in range(3))
        if suites % OLD_SUITE or not suites or suites + session + challenge != reader.left:
            raise ProtocolError("a hello of SSL 2.0 whose lengths contradict each other")
        listed = reader.take(suites)
    except TruncatedError:
        raise ProtocolError("a hello of SSL 2.0 ends too early") from None
    found = (
        int.from_bytes(listed[at : at + OLD_SUITE], "big") for at in range(0, suites, OLD_SUITE)
    )
    # Those of SSL 2.0 itself have a first octet, and no name.
    return ClientHello(highest, suites=tuple(each for each in found if each < 1 << 16))


def server_hello(message: bytes, is_whole: bool) -> ServerHello:
    """Read a ServerHello; as far as it was captured if not whole. Raises ProtocolError."""
    found, extensions = ServerHello(), list[int]()
    try:
        reader = Reader(message)
        head = found.version = reader.number(2)
        if head >> 8 not in (3, 0x7F):
            raise ProtocolError("a ServerHello of no known version")
        found.is_retry = reader.take(RANDOM) == RETRY_RANDOM
        reader.vector(1)
        found.suite = reader.number(2)
        reader.number(1)  # compression method
        for kind, body in _extensions(reader, is_whole):
            extensions.append(kind)
            _read_choice(kind, body, found)
    except TruncatedError:
        if is_whole:
            raise ProtocolError("a ServerHello ends too early") from None
        return found
    if is_whole:
        found.ja3s = fingerprints.ja3s(head, found.suite, extensions)
    return found


def _read_choice(kind: int, body: bytes, found: ServerHello) -> None:
    if kind == SUPPORTED_VERSIONS and len(body) == 2:
        found.version = int.from_bytes(body, "big")
    elif kind == ALPN and len(body) > 3:  # a list of one name: two lengths before it
        found.alpn = text(body[3:])
    elif kind == PRE_SHARED_KEY:
        found.is_resumed = True
