# mypy: ignore-errors
"""The octets and words of RESP, and how a connection begins."""

from services.capture.dissectors.signatures import ANY, CLIENT, DIGIT, Signature, text

PORTS = frozenset({6379, 6380, 26379})
"""Of servers, of second servers on the same host, and of Sentinel."""

MOST_ARGUMENT_DIGITS = 7  # a server takes 1,048,576 arguments (proto-max-multibulk-len)

_LETTER = bytes(range(ord("A"), ord("Z") + 1)) + bytes(range(ord("a"), ord("z") + 1))
_AFTER_WORD = b" \r\n"

SIGNATURES = (
    *(
        Signature(CLIENT, (b"*", b"123456789", *[DIGIT] * more, b"\r", b"\n", b"$", DIGIT))
        for more in range(MOST_ARGUMENT_DIGITS)
    ),
    # Inline commands: of probes, and of people with telnet.
    Signature(CLIENT, (*text("PING"), _AFTER_WORD)),
    Signature(CLIENT, (_LETTER, _LETTER, _LETTER, _LETTER + b" \r\n", ANY), only_on_port=True),
)

ARRAY, SET, PUSH, MAP, ATTRIBUTE = (ord(each) for each in "*~>%|")
BULK, VERBATIM, BULK_ERROR = (ord(each) for each in "$=!")
SIMPLE, ERROR, INTEGER, NULL, DOUBLE, BOOLEAN, BIG = (ord(each) for each in "+-:_,#(")

TYPES = {
    ARRAY: "Array", SET: "Set", PUSH: "Push", MAP: "Map", ATTRIBUTE: "Attribute",
    BULK: "Bulk String", VERBATIM: "Verbatim String", BULK_ERROR: "Bulk Error",
    SIMPLE: "Simple String", ERROR: "Error", INTEGER: "Integer", NULL: "Null", DOUBLE: "Double",
    BOOLEAN: "Boolean", BIG: "Big Number",
}  # fmt: skip
"""What an entry's `type` says; of a command that is not in RESP, INLINE."""
INLINE = "Inline"

WORD_SIZE = 8  # octets of the first word that are compared


def word(name: str) -> int:
    """Return the first octets of a command in lower case, as a number, and its length below it."""
    octets = name.lower().encode("ascii")
    return int.from_bytes(octets[:WORD_SIZE].ljust(WORD_SIZE, b"\0"), "big") & ~0xFF | len(octets)


# Seven octets and the length tell all of these apart.
SUBSCRIPTIONS = tuple(
    word(each)
    for each in (
        "subscribe", "psubscribe", "ssubscribe", "unsubscribe", "punsubscribe", "sunsubscribe",
    )
)  # fmt: skip
PUBLISHED = tuple(word(each) for each in ("message", "pmessage", "smessage"))
MONITOR = word("monitor")
CLIENT_COMMAND, REPLY_ARGUMENT, OFF, SKIP = (
    word(each) for each in ("client", "reply", "off", "skip")
)
"""CLIENT REPLY OFF, and SKIP: commands without replies."""
REPLICATION = tuple(word(each) for each in ("psync", "sync"))
"""After these the server speaks as a client does."""
