"""Who has which address since when, from what the API server says. `watch` tells it objects.

One thread at a time may call. What follows from an object is a list of changes, which `take` gives.

An address goes to another pod soon after its pod has ended. A pod has its address from its start,
as the kubelet says, which is before the API server tells of the address; but not before the pod
that had it was over.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from services.capture.identity.names import KEPT_NS
from services.capture.identity.objects import EndpointSlice, Node, Pod, Service
from services.capture.identity.owners import ANY_NODE, OPEN_NS, Change, Owner, place_of


@dataclass(slots=True)
class _Holding:
    """Who has a place."""

    holder: str
    begin_ns: int
    owner: Owner


class Cluster:
    """The objects that have addresses."""

    def __init__(self) -> None:
        self.namespaces: set[str] = set()
        self._held: dict[bytes, _Holding] = {}
        self._ended: dict[bytes, int] = {}  # when a place that nobody has now was given up
        self._places: dict[str, set[bytes]] = {}  # by holder
        self._waiting: dict[bytes, set[str]] = {}  # pods that say that they have another's place
        self._pods: dict[str, Pod] = {}
        self._slices: dict[str, EndpointSlice] = {}
        self._services: dict[str, dict[str, int]] = defaultdict(dict)
        """By the uid of a pod, services that it is behind, and how many slices say so."""
        self._ports: dict[str, frozenset[int]] = {}  # by container, of the own node
        self._changes: list[Change] = []

    def take(self) -> list[Change]:
        """Return what has changed since the last call."""
        changes, self._changes = self._changes, []
        return changes

    def everything(self) -> list[Change]:
        """Return who has what now, for somebody who comes later."""
        return [
            Change(place, held.begin_ns, OPEN_NS, held.owner) for place, held in self._held.items()
        ]

    # ------------------------------------------------------------------ objects

    def put(self, key: str, found: Pod | Service | EndpointSlice | Node | str, now_ns: int) -> None:
        """Take an object that is new or has changed into account."""
        match found:
            case Pod():
                self._put_pod(found, now_ns)
            case Service():
                owner = _of_service(found)
                places = [place_of(address) for address in found.addresses]
                places += [place_of(ANY_NODE, port) for port in found.node_ports]
                self._hold(key, dict.fromkeys(places, owner), found.begin_ns, now_ns)
            case EndpointSlice():
                self._put_slice(key, found, now_ns)
            case Node():
                owner = Owner(found.name, labels=found.labels, is_node=True)
                places = [place_of(address) for address in found.addresses]
                self._hold(key, dict.fromkeys(places, owner), found.begin_ns, now_ns)
            case str():
                self.namespaces.add(found)

    def remove(
        self, key: str, found: Pod | Service | EndpointSlice | Node | str, now_ns: int
    ) -> None:
        """Take into account that an object is gone."""
        match found:
            case Pod():
                self._pods.pop(found.uid, None)
                self._release(found.uid, found.end_ns or now_ns, now_ns)
            case EndpointSlice():
                empty = EndpointSlice("", "", "", frozenset(), frozenset())
                self._put_slice(key, empty, now_ns)
                self._slices.pop(key, None)
            case str():
                self.namespaces.discard(found)
            case _:
                self._release(key, now_ns, now_ns)

    def put_ports(self, found: dict[str, frozenset[int]], now_ns: int) -> None:
        """Take into account on which ports containers of the own node listen."""
        if found == self._ports:
            return
        before, self._ports = self._ports, found
        changed = {each for each in before.keys() | found if before.get(each) != found.get(each)}
        for pod in list(self._pods.values()):
            if pod.is_of_node and not changed.isdisjoint(pod.containers):
                self._hold_pod(pod, now_ns)

    def _put_pod(self, pod: Pod, now_ns: int) -> None:
        if pod.end_ns is not None:
            self._pods.pop(pod.uid, None)
            self._release(pod.uid, pod.end_ns or now_ns, now_ns)
            return
        self._pods[pod.uid] = pod
        self._hold_pod(pod, now_ns)

    def _hold_pod(self, pod: Pod, now_ns: int) -> None:
        services = sorted(self._services.get(pod.uid, ()))
        service, others = (services[0], tuple(services[1:])) if services else ("", ())
        owner = Owner(service or pod.name, pod.namespace, pod.name, service, "", pod.labels, others)
        places = [place_of(address) for address in pod.addresses]
        ports = set(pod.ports)
        if pod.is_of_node:
            ports.update(*(self._ports.get(each, ()) for each in pod.containers))
        places += [place_of(address, port) for address in pod.node_addresses for port in ports]
        self._hold(pod.uid, dict.fromkeys(places, owner), pod.begin_ns, now_ns)

    def _put_slice(self, key: str, found: EndpointSlice, now_ns: int) -> None:
        before = self._slices.get(key)
        self._slices[key] = found
        changed: set[str] = set()
        for each, step in ((before, -1), (found, 1)):
            if each is None or not each.service:
                continue
            for uid in each.pods:
                counts = self._services[uid]
                counts[each.service] = counts.get(each.service, 0) + step
        for each in (before, found):
            changed |= each.pods if each is not None else frozenset()
        if before is not None and before.service == found.service:
            changed -= before.pods & found.pods
        for uid in changed:
            counts = self._services[uid]
            for service in [service for service, count in counts.items() if count <= 0]:
                del counts[service]
            if not counts:
                del self._services[uid]
            if uid in self._pods:
                self._hold_pod(self._pods[uid], now_ns)
        owner = Owner(found.service, found.namespace, service=found.service)
        others = found.others if found.service else ()
        places = [place_of(address, port) for address, port in others]
        self._hold(key, dict.fromkeys(places, owner), now_ns, now_ns)

    # ------------------------------------------------------------------ places

    def _hold(self, holder: str, wanted: dict[bytes, Owner], begin_ns: int, now_ns: int) -> None:
        """Let a holder have these places and no others."""
        begin_ns = min(begin_ns, now_ns)
        mine = self._places.get(holder, set())
        self._give_up(holder, mine - wanted.keys(), now_ns, now_ns)
        for place, owner in wanted.items():
            held = self._held.get(place)
            if held is None:
                begin = max(begin_ns, self._ended.pop(place, 0))
            elif held.holder != holder:
                if held.begin_ns > begin_ns:
                    self._waiting.setdefault(place, set()).add(holder)
                    continue
                begin = max(begin_ns, held.begin_ns + 1)
                self._tell(place, held, begin)
                self._places[held.holder].discard(place)
            elif held.owner == owner:
                continue
            elif not held.owner.service and owner.service:
                begin = held.begin_ns  # it was meant to be behind the service from its begin
            else:
                begin = max(now_ns, held.begin_ns + 1)
                self._tell(place, held, begin)
            taken = _Holding(holder, begin, owner)
            self._held[place] = taken
            self._tell(place, taken, OPEN_NS)
            self._places.setdefault(holder, set()).add(place)

    def _release(self, holder: str, end_ns: int, now_ns: int) -> None:
        places = self._places.pop(holder, set())
        self._give_up(holder, places, min(end_ns, now_ns), now_ns)
        for place in places:
            for uid in self._waiting.pop(place, ()):
                if uid in self._pods:
                    self._hold_pod(self._pods[uid], now_ns)

    def _give_up(self, holder: str, places: Iterable[bytes], end_ns: int, now_ns: int) -> None:
        for place in places:
            held = self._held[place]
            end = max(end_ns, held.begin_ns + 1)
            self._tell(place, held, end)
            del self._held[place]
            self._places.get(holder, set()).discard(place)
            self._ended[place] = end
        if len(self._ended) > 2 * len(self._held) + 1024:
            oldest = now_ns - KEPT_NS
            self._ended = {place: end for place, end in self._ended.items() if end > oldest}

    def _tell(self, place: bytes, held: _Holding, end_ns: int) -> None:
        self._changes.append(Change(place, held.begin_ns, end_ns, held.owner))


def _of_service(found: Service) -> Owner:
    return Owner(
        found.name,
        found.namespace,
        service=found.name,
        labels="",
        is_service=True,
        on_nodes=bool(found.node_ports),
    )
