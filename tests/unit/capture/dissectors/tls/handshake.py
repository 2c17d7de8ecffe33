"""One stream of TLS as a Conversation, for tests that play what two sides say."""

import numpy as np
import orjson

from services.capture.dissectors.conversation import Conversation, ProtocolError
from services.capture.dissectors.dissector import IS_SERVER
from services.capture.dissectors.objectcalls import Exchange
from services.capture.dissectors.tls.entries import TlsDissector
from services.capture.dissectors.tls.rows import new_framer
from services.capture.reassembly import DATA, ENDED, GAP, SEGMENT

NOTHING = np.zeros(1, np.uint8)
ARENA = 1 << 20


def new_dissector(flows=1, arena=ARENA):
    dissector = TlsDissector(None, flows)
    dissector._framer = new_framer(flows, arena)
    return dissector


def rows_of(side, stream, time_ns, kind, length, position=0):
    row = np.zeros(1, SEGMENT)
    row["timestamp"], row["stream"], row["kind"] = time_ns, stream, kind
    row["direction"] = 2 * (stream - 1) + side
    row["position"], row["length"] = position, length
    return row


def exchanges_of(calls):
    """Calls as exchanges, what is told in JSON as objects."""
    found = []
    details = calls.details(np.arange(len(calls)))
    shown = {name: column.to_pylist() for name, column in details.items()}
    for row in range(len(calls)):
        request, response = (
            None if shown[side][row] is None else orjson.loads(shown[side][row])
            for side in ("request", "response")
        )
        found.append(
            Exchange(
                int(calls.start_ns[row]), int(calls.end_ns[row]), request, response,
                int(calls.request_size[row]), int(calls.response_size[row]),
                int(calls.request_direction[row]), shown["error_type"][row],
                shown["error_msg"][row], shown["protocol_version"][row],
            )
        )  # fmt: skip
    return found


class Handshake(Conversation):
    """The first stream of a dissector."""

    def __init__(self, arena=ARENA):
        super().__init__()
        self.dissector = new_dissector(1, arena)
        self._is_ended = False

    def receive(self, side, octets, time_ns):
        array = np.frombuffer(bytearray(octets), np.uint8)  # exact: a read behind its end raises
        self._take(rows_of(side, 1, time_ns, DATA, len(octets)), side, array)

    def gap(self, side, octets, time_ns):
        self._take(rows_of(side, 1, time_ns, GAP, octets), side, NOTHING)

    def close(self, time_ns):
        if not self._is_ended:
            self._take(rows_of(0, 1, time_ns, ENDED, 0), 0, NOTHING)

    def _take(self, rows, side, octets):
        marks = np.array([IS_SERVER if side else 0], np.uint8)
        self.dissector.take(rows, marks, octets, NOTHING)
        calls = self.dissector.calls()
        self.exchanges += [] if calls is None else exchanges_of(calls)
        self.is_over = self._is_ended = bool(self.dissector.over)
        if self.dissector.broken or self.dissector.refused:
            self._is_ended = True
            raise ProtocolError("what TLS does not say")

    @property
    def buffered(self):
        return int(self.dissector._framer.sides["kept"].sum())
