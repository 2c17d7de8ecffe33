"""DNS as a test tells it: messages of a conversation in, entries out."""

import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from services.capture.dissectors.dns import Dns, DnsCalls

CLIENT, SERVER = 0, 1
MILLISECOND = 1_000_000


def take(dns: Dns, messages: Sequence[tuple], multicast: bool = False) -> None:
    """Let `dns` take messages: (milliseconds, stream, direction, octets)."""
    octets = np.frombuffer(bytearray(b"".join(message for *_, message in messages)), np.uint8)
    ends = np.cumsum([len(message) for *_, message in messages])
    dns.take(
        octets,
        ends - [len(message) for *_, message in messages],
        ends,
        np.array([time for time, *_ in messages]) * MILLISECOND,
        np.array([stream for _, stream, *_ in messages]),
        np.array([direction for _, _, direction, _ in messages]),
        np.full(len(messages), multicast),
    )
    octets[:] = 0xAA  # good during the call only


def entries(calls: DnsCalls | None) -> list[dict[str, Any]]:
    """Return all calls as dicts, their request and response as objects."""
    if calls is None:
        return []
    details = calls.details(np.arange(len(calls)))
    found = []
    for row in range(len(calls)):
        entry: dict[str, Any] = {name: column[row].as_py() for name, column in details.items()}
        for side in ("request", "response"):
            entry[side] = None if entry[side] is None else json.loads(entry[side])
        entry["stream"] = int(calls.streams[row])
        entry["direction"] = int(calls.request_direction[row])
        entry["start"] = int(calls.start_ns[row]) // MILLISECOND
        entry["end"] = int(calls.end_ns[row]) // MILLISECOND
        found.append(entry)
    assert calls.columns()["error_type"]().to_pylist() == [e["error_type"] for e in found]
    assert calls.has_request.tolist() == [e["request"] is not None for e in found]
    assert calls.has_response.tolist() == [e["response"] is not None for e in found]
    return found


@pytest.fixture
def dissect() -> Callable[..., dict[str, Any]]:
    """Return a function from one message to its entry's request or response."""

    def one(message: bytes) -> dict[str, Any]:
        dns = Dns()
        take(dns, [(0, 1, CLIENT, message)])
        dns.end()
        (entry,) = entries(dns.calls())
        return entry["request"] or entry["response"]

    return one


class Wire:
    """What tests need of this module, as a fixture."""

    take = staticmethod(take)
    entries = staticmethod(entries)


@pytest.fixture
def wire() -> type[Wire]:
    return Wire
