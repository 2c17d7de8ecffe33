"""A small protocol, to test what all protocols share: lines that begin with `ask ` and `say `."""

from services.capture.dissectors import conversation
from services.capture.dissectors.conversation import Conversation, ProtocolError
from services.capture.dissectors.dissector import ProtocolKind
from services.capture.dissectors.objectcalls import Exchange
from services.capture.dissectors.signatures import CLIENT, SERVER, Signature, text


class Echo(Conversation):
    """Answers come in order; `ask boom` is a mistake in our own code; after `bye` all is over."""

    nonsense = "nothing"

    def __init__(self):
        super().__init__()
        self.lines = [b"", b""]
        self.asked = []
        self.lost = [False, False]

    @property
    def buffered(self):
        return len(self.lines[0]) + len(self.lines[1])

    def receive(self, side, octets, time_ns):
        *lines, rest = (self.lines[side] + bytes(octets)).split(b"\n")
        if lines and self.lost[side]:
            if not lines[0].startswith((b"ask ", b"say ")):
                del lines[:1]
            self.lost[side] = False
        self.lines[side] = rest
        for line in lines:
            self.take(side, line.decode("latin-1"), time_ns)

    def take(self, side, line, time_ns):
        word, _, rest = line.partition(" ")
        if word not in ("ask", "say") or rest == self.nonsense:
            raise ProtocolError("no such word")
        if rest == "boom":
            raise KeyError(rest)
        self.understood = True
        self.is_over = rest == "bye"
        if word == "ask":
            self.asked.append((time_ns, rest))
            return
        asked_ns, asked = self.asked.pop(0) if self.asked else (time_ns, None)
        request = None if asked is None else {"query": asked}
        response = {"status": 200, "rows": rest}
        sizes = len(asked or ""), len(rest)
        self.exchanges.append(Exchange(asked_ns, time_ns, request, response, *sizes, CLIENT))

    def gap(self, side, octets, time_ns):
        self.lost[side] = True
        self.lines[side] = b""

    def close(self, time_ns):
        for asked_ns, asked in self.asked:
            lacks = "pair-not-found", "the stream ended"
            self.exchanges.append(
                Exchange(asked_ns, time_ns, {"query": asked}, None, len(asked), 0, CLIENT, *lacks)
            )
        self.asked = []


class Patient(Echo):
    """Looks like Echo, and understands `ask nothing`."""

    nonsense = ""


SIGNATURES = (Signature(CLIENT, text("ask ")), Signature(SERVER, text("say ")))
ECHO = ProtocolKind("mysql", "MYSQL", "tcp", frozenset({7}), SIGNATURES, conversation.of(Echo))
PATIENT = ProtocolKind("kafka", "KAFKA", "tcp", frozenset(), SIGNATURES, conversation.of(Patient))
PATIENT_DATAGRAMS = ProtocolKind(
    "diameter", "DIAMETER", "udp", frozenset(), SIGNATURES, conversation.of(Patient)
)
DATAGRAMS = ProtocolKind("radius", "RADIUS", "udp", frozenset(), SIGNATURES, conversation.of(Echo))
