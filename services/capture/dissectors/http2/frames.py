"""Frames of HTTP/2 (RFC 9113, 4 and 6) as they are on the wire, and how a connection begins."""

from services.capture.dissectors.signatures import ANY, CLIENT, SERVER, Signature

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS = range(5)
PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(5, 10)
KINDS = 10
END_STREAM, ACK, END_HEADERS, PADDED, WITH_PRIORITY = 0x1, 0x1, 0x4, 0x8, 0x20
FLAGS = (
    END_STREAM | PADDED, END_STREAM | END_HEADERS | PADDED | WITH_PRIORITY, 0, 0, ACK,
    END_HEADERS | PADDED, ACK, 0, 0, END_HEADERS,
)  # fmt: skip
"""By type: those that have a meaning."""
HEAD = 9  # octets
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

_SHORT = (b"\0", bytes(range(0x41)), ANY)  # a length of up to 16 KiB
_ENDS_HEADERS = bytes(f for f in range(0x40) if f & END_HEADERS and not f & ~0x2D)
_CONNECTION = (b"\0",) * 4


def _signatures() -> tuple[Signature, ...]:
    """The preface, or a server's settings; in the middle, frames that are hardly anything else."""
    of_both = (
        (*_SHORT, b"\1", _ENDS_HEADERS, bytes(range(0x80)), ANY, ANY, ANY),  # HEADERS
        (b"\0", b"\0", bytes(range(0, 0x100, 6)), b"\4", b"\0\1", *_CONNECTION),  # SETTINGS
        (b"\0", b"\0", b"\x08", b"\6", b"\0\1", *_CONNECTION),  # PING
        (b"\0", b"\0", b"\4", b"\x08", b"\0", b"\0", ANY, ANY, ANY),  # WINDOW_UPDATE
    )
    preface = Signature(CLIENT, tuple(bytes([octet]) for octet in PREFACE))
    return preface, *(Signature(side, octets) for side in (CLIENT, SERVER) for octets in of_both)


SIGNATURES = _signatures()
