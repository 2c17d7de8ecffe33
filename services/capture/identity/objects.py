"""What is kept of an object of the API server: of a pod hundreds of octets instead of thousands.

`cluster` calls these with parsed JSON. A field that is missing, or is not what the API reference
says, counts as not there: https://kubernetes.io/docs/reference/kubernetes-api/
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

import orjson

from services.capture.identity.owners import place_of

Json = Mapping[str, Any]

MOST_ADDRESSES = 64
"""Of one pod, service or node: a pod has two at most, a service a few."""

MOST_PORTS = 256
"""Of one pod or service: ports are declared by hand."""

MOST_ENDPOINTS = 1000
"""Of one slice, as the API server has it."""

SECOND_NS = 10**9

SERVICE_LABEL = "kubernetes.io/service-name"

Kind = TypeVar("Kind")


@dataclass(frozen=True, slots=True)
class Pod:
    """A pod, with the addresses that are its own."""

    uid: str
    namespace: str
    name: str
    node: str
    addresses: tuple[str, ...]
    is_of_node: bool
    """It shares the addresses of its node; then it is known by its ports."""
    ports: tuple[int, ...]
    """That it has on its node's addresses."""
    node_addresses: tuple[str, ...]
    labels: str
    """A JSON object, "" for none."""
    begin_ns: int
    end_ns: int | None
    """When its containers were over; None while some run."""
    containers: tuple[str, ...] = ()
    """Ids; only those of the node that asks."""


@dataclass(frozen=True, slots=True)
class Service:
    """A service, with the addresses under which it is called."""

    uid: str
    namespace: str
    name: str
    addresses: tuple[str, ...]
    node_ports: tuple[int, ...]
    labels: str
    begin_ns: int


@dataclass(frozen=True, slots=True)
class EndpointSlice:
    """Who answers for a service."""

    namespace: str
    name: str
    service: str
    pods: frozenset[str]
    """Their uids."""
    others: frozenset[tuple[str, int]]
    """Addresses and ports that are of no pod."""


@dataclass(frozen=True, slots=True)
class Node:
    """A node."""

    name: str
    addresses: tuple[str, ...]
    labels: str
    begin_ns: int


def read_pod(found: Json, own_node: str) -> Pod:
    """Raises ValueError when it has no uid or no name; so do the others."""
    metadata, spec, status = (_of(found, key) for key in ("metadata", "spec", "status"))
    uid, name = _required(metadata, "uid"), _required(metadata, "name")
    is_of_node = spec.get("hostNetwork") is True
    node = _text(spec, "nodeName")
    declared = [port for each in _containers(spec) for port in _listed(each, "ports")]
    key = "containerPort" if is_of_node else "hostPort"
    statuses = [
        each
        for kind in ("containerStatuses", "initContainerStatuses")
        for each in _listed(status, kind)
    ]
    return Pod(
        uid,
        _text(metadata, "namespace"),
        name,
        node,
        () if is_of_node else _addresses(status, "podIP", "podIPs"),
        is_of_node,
        _ports(port.get(key) for port in declared),
        _addresses(status, "hostIP", "hostIPs"),
        _labels(metadata),
        _time(status.get("startTime")) or _time(metadata.get("creationTimestamp")) or 0,
        _end_of(status, statuses),
        tuple(_text(each, "containerID").rpartition("//")[2] for each in statuses)
        if node == own_node
        else (),
    )


def _containers(spec: Json) -> Iterator[Json]:
    yield from _listed(spec, "containers")
    yield from _listed(spec, "initContainers")


def _end_of(status: Json, statuses: list[Json]) -> int | None:
    if status.get("phase") not in ("Succeeded", "Failed"):
        return None
    states = (_of(_of(each, "state"), "terminated") for each in statuses)
    times = [_time(each.get("finishedAt")) for each in states]
    # To the second: what it says is within the second that follows.
    return max((time + SECOND_NS for time in times if time is not None), default=0)


def read_service(found: Json, own_node: str) -> Service:
    """Return a service; one without addresses has none."""
    del own_node
    metadata, spec = _of(found, "metadata"), _of(found, "spec")
    ingress = _listed(_of(_of(found, "status"), "loadBalancer"), "ingress")
    given = [*_addresses(spec, "clusterIP", "clusterIPs"), *_texts(spec.get("externalIPs"))]
    given += [_text(each, "ip") for each in ingress]
    return Service(
        _required(metadata, "uid"),
        _text(metadata, "namespace"),
        _required(metadata, "name"),
        tuple(dict.fromkeys(filter(_is_address, given[:MOST_ADDRESSES]))),
        _ports(port.get("nodePort") for port in _listed(spec, "ports")),
        _labels(metadata),
        _time(metadata.get("creationTimestamp")) or 0,
    )


def read_slice(found: Json, own_node: str) -> EndpointSlice:
    """Return a slice; endpoints that are not ready have their addresses all the same."""
    del own_node
    metadata = _of(found, "metadata")
    service = _text(_of(metadata, "labels"), SERVICE_LABEL)
    pods: set[str] = set()
    others: set[tuple[str, int]] = set()
    ports = _ports(port.get("port") for port in _listed(found, "ports"))
    for endpoint in _listed(found, "endpoints")[:MOST_ENDPOINTS]:
        target = _of(endpoint, "targetRef")
        if target.get("kind") == "Pod":
            pods.add(_text(target, "uid"))
            continue
        for address in _texts(endpoint.get("addresses"))[:MOST_ADDRESSES]:
            if _is_address(address):
                others |= {(address, port) for port in ports}
    pods.discard("")
    name = _required(metadata, "name")
    return EndpointSlice(
        _text(metadata, "namespace"), name, service, frozenset(pods), frozenset(others)
    )


def read_node(found: Json, own_node: str) -> Node:
    """Return a node."""
    del own_node
    metadata, status = _of(found, "metadata"), _of(found, "status")
    given = [_text(each, "address") for each in _listed(status, "addresses")]
    return Node(
        _required(metadata, "name"),
        tuple(dict.fromkeys(filter(_is_address, given[:MOST_ADDRESSES]))),
        _labels(metadata),
        _time(metadata.get("creationTimestamp")) or 0,
    )


def read_namespace(found: Json, own_node: str) -> str:
    """Return its name."""
    del own_node
    return _required(_of(found, "metadata"), "name")


Reader = Callable[[Json, str], Any]


def resource_version(found: Json) -> str:
    """Return what names this version of an object or a list; "" for none."""
    return _text(_of(found, "metadata"), "resourceVersion")


def key_of(found: Json) -> str:
    """Return what names an object among those of its kind: a new one may have an old one's name.

    Raises ValueError where it has no name.
    """
    metadata = _of(found, "metadata")
    uid = _text(metadata, "uid")
    return uid or f"{_text(metadata, 'namespace')}/{_required(metadata, 'name')}"


def _of(found: Json, key: str) -> Json:
    value = found.get(key)
    return value if isinstance(value, dict) else {}


def _listed(found: Json, key: str) -> list[Json]:
    value = found.get(key)
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def _text(found: Json, key: str) -> str:
    value = found.get(key)
    return value if isinstance(value, str) else ""


def _texts(value: Any) -> list[str]:
    return [each for each in value if isinstance(each, str)] if isinstance(value, list) else []


def _required(found: Json, key: str) -> str:
    value = _text(found, key)
    if not value:
        raise ValueError(f"an object of the API server has no {key}")
    return value


def _labels(metadata: Json) -> str:
    labels = {key: value for key, value in _of(metadata, "labels").items() if _is_text(value)}
    return orjson.dumps(labels).decode() if labels else ""


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _addresses(found: Json, one: str, several: str) -> tuple[str, ...]:
    given = [_text(found, one), *_texts(found.get(several))]
    given += [_text(each, "ip") for each in _listed(found, several)]
    return tuple(dict.fromkeys(filter(_is_address, given[:MOST_ADDRESSES])))


def _is_address(text: str) -> bool:
    """Whether it is one; a headless service has the text None."""
    with contextlib.suppress(ValueError):
        return bool(place_of(text))
    return False


def _ports(given: Iterator[Any]) -> tuple[int, ...]:
    ports = [port for port in given if type(port) is int and 0 < port < 1 << 16]
    return tuple(dict.fromkeys(ports[:MOST_PORTS]))


def _time(value: Any) -> int | None:
    """Return nanoseconds since 1970 of a time as RFC 3339 has it, which the API server gives to the
    second; None for anything else.
    """
    if not isinstance(value, str):
        return None
    with contextlib.suppress(ValueError, OverflowError):
        moment = datetime.fromisoformat(value)
        return int(moment.timestamp()) * SECOND_NS if moment.tzinfo else None
    return None
