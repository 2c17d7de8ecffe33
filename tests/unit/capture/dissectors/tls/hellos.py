"""TLS messages as the RFCs have them, for tests."""

import datetime

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

RANDOM = bytes(range(32))
CHANGE_CIPHER_SPEC = b"\x14\x03\x03\x00\x01\x01"
FINISHED = b"\x16\x03\x03\x00\x10" + b"\xa5" * 16
"""A handshake record that is encrypted."""
APPLICATION_DATA = b"\x17\x03\x03\x00\x08encrypted"[:13]
TLS13 = (43, b"\x03\x04")  # a ServerHello's supported_versions


def vector(size: int, octets: bytes) -> bytes:
    return len(octets).to_bytes(size, "big") + octets


def numbers(*values: int) -> bytes:
    return b"".join(value.to_bytes(2, "big") for value in values)


def message(kind: int, body: bytes) -> bytes:
    return bytes([kind]) + vector(3, body)


def record(content: bytes, kind: int = 22, size: int = 1 << 14) -> bytes:
    parts = [content[at : at + size] for at in range(0, len(content), size)]
    return b"".join(bytes([kind, 3, 3]) + vector(2, part) for part in parts)


def alert(level: int, number: int) -> bytes:
    return record(bytes([level, number]), 21)


def extensions(listed) -> bytes:
    return vector(2, b"".join(numbers(kind) + vector(2, body) for kind, body in listed))


def sni(name: str):
    return 0, vector(2, b"\0" + vector(2, name.encode()))


def alpn(*names: str):
    return 16, vector(2, b"".join(vector(1, name.encode()) for name in names))


def client_hello(suites, listed=(), version=0x0303) -> bytes:
    head = numbers(version) + RANDOM + vector(1, b"") + vector(2, numbers(*suites))
    return message(1, head + vector(1, b"\0") + (extensions(listed) if listed else b""))


def server_hello(suite, listed=(), version=0x0303, random=RANDOM) -> bytes:
    head = numbers(version) + random + vector(1, b"") + numbers(suite) + b"\0"
    return message(2, head + (extensions(listed) if listed else b""))


def certificate(subject: str, sans=()) -> bytes:
    """DER of a certificate that nobody signed but itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)])
    issuer = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Example Org")])
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(4711)
        .not_valid_before(datetime.datetime(2026, 1, 2, 3, 4, 5))
        .not_valid_after(datetime.datetime(2027, 1, 2, 3, 4, 5))
    )
    if sans:
        listed = x509.SubjectAlternativeName([x509.DNSName(each) for each in sans])
        builder = builder.add_extension(listed, critical=False)
    from cryptography.hazmat.primitives.serialization import Encoding

    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.DER)


def chain(*certificates: bytes) -> bytes:
    return message(11, vector(3, b"".join(vector(3, each) for each in certificates)))
