# mypy: ignore-errors
"""Numbers of TLS's records and handshake messages, and how a connection begins."""

from services.capture.dissectors.signatures import ANY, CLIENT, SERVER, Signature

CHANGE_CIPHER_SPEC, ALERT, HANDSHAKE, APPLICATION_DATA = 20, 21, 22, 23  # RFC 8446, 5.1
LAST_TYPE = 24  # heartbeat, RFC 6520
HEAD = 5  # octets before each record's content: type, version, length
LONGEST_RECORD = (1 << 14) + 2048  # octets of its content, encrypted (RFC 5246, 6.2.3)

CLIENT_HELLO, SERVER_HELLO, CERTIFICATE, SERVER_HELLO_DONE = 1, 2, 11, 14  # RFC 8446, 4
MESSAGE_HEAD = 4  # octets: type and length
TYPES = (0, 1, 2, 4, 5, 8, 11, 12, 13, 14, 15, 16, 20, 21, 22, 23, 24)
"""Of handshake messages."""
LONGEST_MESSAGE = 1 << 17
"""Octets of a message that are kept, its head too: chains of certificates are shorter."""

CLOSE_NOTIFY, USER_CANCELED = 0, 90
FATAL = 2
ALERT_OCTETS = 2  # of one that is not encrypted

OLD_HEAD = 3  # octets of SSL 2.0's: two of length, of which the first bit is set, and the type
OLD_LENGTH = 0x7FFF

REQUEST_UNSEEN = "pair-not-found", "the request was not seen"
ANSWER_UNSEEN = "pair-not-found", "the stream ended before an answer"

_LENGTH = (bytes(range(0x49)), ANY)  # up to 2^14 + 2048
_BEGIN = (b"\x03", bytes(range(5)), *_LENGTH)
SIGNATURES = (
    # A handshake record whose first message is a hello of less than 64 KiB.
    Signature(CLIENT, (b"\x16", *_BEGIN, b"\x01", b"\x00")),
    Signature(SERVER, (b"\x16", *_BEGIN, b"\x02", b"\x00")),
    Signature(SERVER, (b"\x15", b"\x03", bytes(range(5)), b"\x00", b"\x02", b"\x01\x02")),
    # SSL 2.0's form of a hello that offers SSL 3.0 or later, or SSL 2.0.
    Signature(CLIENT, (b"\x80", ANY, b"\x01", b"\x03", bytes(range(4)), b"\x00")),
    Signature(CLIENT, (b"\x80", ANY, b"\x01", b"\x00", b"\x02", b"\x00")),
)
