# mypy: ignore-errors
"""Dissects what the IP header names: ICMP, SCTP, and Diameter on SCTP. The pipeline calls it.

Their packets have streams as UDP's have. They are rare, so that an object for each is affordable;
of a flood only some are looked at, and the rest is counted.
"""

from collections import Counter
from collections.abc import Iterable

import numpy as np

from services.capture.decode import PACKET
from services.capture.dissectors import conversation
from services.capture.dissectors.diameter.oversctp import DiameterOverSctp
from services.capture.dissectors.dissector import Dissector, ProtocolKind
from services.capture.dissectors.icmp import ICMP, ICMP6
from services.capture.dissectors.sctp import SCTP
from services.capture.flows import NO_STREAM, Streams
from services.capture.headers import (
    PROTOCOL_ICMP,
    PROTOCOL_ICMPV6,
    PROTOCOL_SCTP,
    PROTOCOL_TCP,
    PROTOCOL_UDP,
)
from services.capture.kernel import kernel

MOST_PACKETS = 4096
"""Of a batch, which has four times as many: some microseconds each."""

DIAMETER = ProtocolKind(
    "diameter", "DIAMETER", "sctp", frozenset(), (), conversation.of(DiameterOverSctp)
)  # fmt: skip
BY_PROTOCOL: tuple[tuple[int, ProtocolKind], ...] = (
    (PROTOCOL_ICMP, ICMP),
    (PROTOCOL_ICMPV6, ICMP6),
    (PROTOCOL_SCTP, SCTP),
    (PROTOCOL_SCTP, DIAMETER),
)
"""Numbers in the IP header, and what then may be understood."""
NOT_OTHERS = (0, PROTOCOL_TCP, PROTOCOL_UDP)


@kernel
def find_others(packets, rows):
    """Fill `rows` with those of the packets that are neither TCP nor UDP; return how many."""
    found = 0
    for row in range(len(packets)):
        packet = packets[np.uint64(row)]
        if packet.protocol in NOT_OTHERS:
            continue
        if packet.stream != NO_STREAM:
            rows[np.uint64(found)] = row
            found += 1
    return found


class ByProtocol:
    """The dissectors of packets that are neither TCP nor UDP, for one pipeline."""

    def __init__(self, most_flows: int, streams: Streams) -> None:
        self._most_flows, self._streams = most_flows, streams
        self._rows = np.zeros(0, np.int64)
        self._dissectors: dict[int, Dissector] = {}  # by place in BY_PROTOCOL
        self.overrun = 0
        """Packets that were not looked at, since the last losses()."""
        self._broken: Counter[str] = Counter()  # streams whose rest was not understood
        self.want(None)

    @property
    def dissectors(self) -> Iterable[Dissector]:
        """Those that are wanted now."""
        return self._dissectors.values()

    def want(self, names: frozenset[str] | None) -> None:
        """Look for these protocols from now on; None for all."""
        old = self._dissectors
        self._dissectors = {
            place: old.get(place) or kind.new_dissector(kind, self._most_flows)
            for place, (_, kind) in enumerate(BY_PROTOCOL)
            if names is None or kind.name in names
        }

    def take(self, packets: np.ndarray, octets: np.ndarray) -> None:
        """Take PACKET rows, in their order, whose payloads lie in `octets`."""
        assert packets.dtype == PACKET
        if not self._dissectors:
            return
        if len(packets) > len(self._rows):
            self._rows = np.zeros(len(packets), np.int64)
        count = find_others(packets, self._rows)
        if count == 0:
            return
        self.overrun += max(0, count - MOST_PACKETS)
        chosen = packets[self._rows[: min(count, MOST_PACKETS)]]
        # Conversations get SCTP's header, too, which has a tag and a checksum.
        chosen["payload_offset"] -= chosen["header_length"]
        chosen["payload_length"] += chosen["header_length"]
        rows = self._streams.rows[chosen["stream"] & (len(self._streams.rows) - 1)]
        servers = (chosen["direction"] != rows["client"]).astype(np.uint8)
        for place, dissector in self._dissectors.items():
            mine = chosen["protocol"] == BY_PROTOCOL[place][0]
            if mine.any():
                dissector.take_datagrams(chosen[mine], servers[mine], octets)
                self._broken[BY_PROTOCOL[place][1].name] += len(dissector.broken)
                for ended in (dissector.refused, dissector.broken, dissector.over):
                    ended.clear()  # no other dissector could read them

    def end_streams(self, numbers: np.ndarray, now: int) -> None:
        """Those streams (int64) are over at `now` (ns)."""
        for dissector in self._dissectors.values():
            dissector.end_streams(numbers, now)

    def losses(self) -> list[tuple[str, str]]:
        """Return (kind of loss, sentence) of what was not dissected since the last call."""
        found = []
        if self.overrun:
            detail = f"{self.overrun} packets of ICMP or SCTP: too many at once to be looked at"
            found.append(("undissected", detail))
            self.overrun = 0
        for name, count in self._broken.items():
            if count:
                found.append(
                    ("undissected", f"{count} streams of {name}, whose octets made no sense")
                )
        self._broken.clear()
        for place, dissector in self._dissectors.items():
            name = BY_PROTOCOL[place][1].name
            for where, count in dissector.faults.items():
                detail = f"the dissector of {name} failed {count} times: {where}"
                found.append(("undissected", detail))
            dissector.faults.clear()
            if dissector.overrun:
                detail = f"{dissector.overrun} calls of {name}: no room"
                found.append(("table_overrun", detail))
                dissector.overrun = 0
        return found
