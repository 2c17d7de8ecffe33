"""Names that DNS answers gave addresses, for peers that no cluster knows. `names` has one.

An answer holds for those who asked, and connections that are made because of it live on for longer
than its time to live; so it counts until another name gets the address, or for an hour.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import orjson

from services.capture.identity.owners import Change, Owner, place_of

KEPT_NS = 3600 * 10**9
"""How long a name holds after the last answer."""

MOST_ADDRESSES = 16_384
"""With a name; then those go whose last answer was longest ago."""

MOST_ANSWERS = 256
"""Read of one batch, at 20 us each: the rest of a flood comes again when it matters."""

LONGEST_NAME = 253


class Calls(Protocol):
    """Calls of DNS, as `dissectors.dns` has them."""

    end_ns: npt.NDArray[np.int64]
    has_request: npt.NDArray[np.bool_]
    has_response: npt.NDArray[np.bool_]

    def details(self, rows: npt.NDArray[np.int64]) -> dict[str, Any]:
        """Return columns, of which `request` and `response` are JSON text."""


class DnsNames:
    """Which name each address had last."""

    def __init__(self) -> None:
        self._held: OrderedDict[str, Change] = OrderedDict()

    def read(self, calls: Calls) -> list[Change]:
        """Return what the answers change."""
        rows = np.flatnonzero(calls.has_request & calls.has_response)[:MOST_ANSWERS]
        if not len(rows):
            return []
        columns = calls.details(rows)
        texts = zip(columns["request"].to_pylist(), columns["response"].to_pylist(), strict=True)
        changes: list[Change] = []
        for (question, answer), time_ns in zip(texts, calls.end_ns[rows].tolist(), strict=True):
            if '"ip"' not in (answer or ""):
                continue
            for address, name in _answers(_parsed(question), _parsed(answer)):
                changes += self._hold(address, name, time_ns)
        return changes

    def _hold(self, address: str, name: str, time_ns: int) -> Sequence[Change]:
        until_ns = time_ns + KEPT_NS
        held = self._held.pop(address, None)
        if len(self._held) >= MOST_ADDRESSES:
            self._held.popitem(last=False)
        if held is not None and held.owner.dns == name and held.begin_ns <= time_ns < held.end_ns:
            self._held[address] = held
            if until_ns < held.end_ns + KEPT_NS // 8:
                return ()  # not each answer is worth a change
            self._held[address] = held._replace(end_ns=until_ns)
            return (self._held[address],)
        taken = Change(place_of(address), time_ns, until_ns, Owner(name, dns=name))
        self._held[address] = taken
        if held is None or held.begin_ns >= time_ns:
            return (taken,)
        return held._replace(end_ns=min(held.end_ns, time_ns)), taken


def _answers(request: Any, response: Any) -> Iterator[tuple[str, str]]:
    """Yield addresses with the name that was asked for, whatever aliases led to them."""
    questions = request.get("questions") or [{}]
    if response.get("code") != "NOERROR" or len(questions) != 1:
        return
    name = str(questions[0].get("name") or "").rstrip(".").lower()
    if not 0 < len(name) <= LONGEST_NAME:
        return
    for answer in response.get("answers") or ():
        if "ip" in answer:
            yield answer["ip"], name


def _parsed(text: str | None) -> Any:
    return orjson.loads(text) if text else {}
