"""Watches the API server for all capture processes of a node. `worker` and `workers` have one.

There is a thread for each kind of object. Changes are given on together, a few times a second: a
new directory of names is made of each lot.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from services.capture.identity.cluster import Cluster
from services.capture.identity.objects import (
    Json,
    Reader,
    read_namespace,
    read_node,
    read_pod,
    read_service,
    read_slice,
)
from services.capture.identity.owners import Change
from services.capture.identity.sockets import container_ports
from services.capture.identity.watch import Watch
from services.runtime.errors import UserError
from services.runtime.logging import logger

GIVEN_SECONDS = 0.2
"""How often changes are given on: 200 a second are 40 each time."""

LOOK_SECONDS = 5.0
"""How often it is looked who listens on the node: a server listens for longer."""

QUIET_SECONDS = 60.0
"""At least so long between two lines of the log about the same kind of trouble."""

IN_CLUSTER = "in-cluster"
"""The setting for an agent in a pod: its service account."""

Receiver = Callable[[Sequence[Change], bool, str], None]
"""Gets changes, whether all has been told with them, and why not, or "": as `Names.take`."""

_log = logger(__name__)


class _Kind:
    """The objects of one kind, for a Watch."""

    def __init__(self, owner: Watcher, name: str, read: Reader) -> None:
        self._watcher = owner
        self._name = name
        self._read = read
        self._found: dict[str, Any] = {}
        self._told = 0.0
        self.is_listed = False
        self.reason = ""
        """Why it was not listed, or is not watched; "" while it is, or nothing is known yet."""

    def put(self, key: str, found: Json) -> None:
        """Take an object into account. Raises ValueError."""
        read = self._read(found, self._watcher.node)
        if self._found.get(key) != read:
            self._found[key] = read
            with self._watcher.lock:
                self._watcher.cluster.put(key, read, time.time_ns())

    def remove(self, key: str) -> None:
        """Forget an object."""
        read = self._found.pop(key, None)
        if read is not None:
            with self._watcher.lock:
                self._watcher.cluster.remove(key, read, time.time_ns())

    def known(self) -> set[str]:
        """Return the keys of all objects."""
        return set(self._found)

    def listed(self) -> None:
        """All objects are known."""
        self.is_listed = True
        _log.debug("listed", kind=self._name, objects=len(self._found))

    def trouble(self, reason: str) -> None:
        """Say in the log why names are missing, or get old; "" for no more."""
        self.reason = reason
        if not reason:
            if self._told:
                _log.info("the API server answers again", kind=self._name)
            self._told = 0.0
        elif not self._told or time.monotonic() > self._told + QUIET_SECONDS:
            what = "get old" if self.is_listed else "are not known, and addresses stay"
            _log.warning(f"names {what}", kind=self._name, reason=reason)
            self._told = time.monotonic()


class Watcher:
    """Pods, services, endpoint slices, nodes and namespaces."""

    def __init__(self, calls: Mapping[str, tuple[Callable[..., Any], Reader]], node: str) -> None:
        """`calls`: by the name of the kind, the client's function that lists, and what reads."""
        self.node = node
        self.lock = threading.Lock()
        self.cluster = Cluster()
        self._stop = threading.Event()
        self._kinds = {name: _Kind(self, name, read) for name, (_, read) in calls.items()}
        self._watches = {
            name: Watch(call, self._kinds[name], self._stop) for name, (call, _) in calls.items()
        }
        self._threads = [
            threading.Thread(target=watch.run, name=f"watch-{name}", daemon=True)
            for name, watch in self._watches.items()
        ]
        self._threads += [
            threading.Thread(target=self._give, name="names", daemon=True),
            threading.Thread(target=self._look, name="sockets", daemon=True),
        ]
        self._receivers: list[Receiver] = []
        self._given: tuple[bool, str] | None = None  # None: nothing was given yet

    def add(self, receiver: Receiver) -> None:
        """Give changes to one more receiver, first all that is known; it must not wait."""
        with self.lock:
            if self._given is not None:
                receiver(self.cluster.everything(), *self._given)
            self._receivers.append(receiver)

    def remove(self, receiver: Receiver) -> None:
        """Give no more to a receiver."""
        with self.lock:
            self._receivers.remove(receiver)

    def start(self) -> None:
        """Begin to watch."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End all watches."""
        self._stop.set()
        for watch in self._watches.values():
            watch.interrupt()
        for thread in self._threads:
            thread.join(1.0)  # one that connects may take longer, and is a daemon

    @property
    def note(self) -> str:
        """Why names are missing, or get old; "" when they are not."""
        reasons = {f"{name}: {kind.reason}" for name, kind in self._kinds.items() if kind.reason}
        return "; ".join(sorted(reasons))

    def _look(self) -> None:
        while not self._stop.wait(LOOK_SECONDS):
            found = container_ports()
            with self.lock:
                self.cluster.put_ports(found, time.time_ns())

    def _give(self) -> None:
        while not self._stop.wait(GIVEN_SECONDS):
            with self.lock:
                if not all(kind.is_listed or kind.reason for kind in self._kinds.values()):
                    continue  # a pod without its service would have another name than later
                state = all(kind.is_listed for kind in self._kinds.values()), self.note
                changes = self.cluster.take()
                if changes or state != self._given:
                    for receiver in self._receivers:
                        receiver(changes, *state)
                self._given = state


def open_watcher(kube: str, node: str) -> Watcher:
    """Return a watcher of the cluster that a setting names: IN_CLUSTER, or a kubeconfig's path.

    Raises UserError when the file, or the service account, is not there.
    """
    # Here, since most processes that import this room do not watch.
    from kubernetes import client, config
    from kubernetes.config import ConfigException

    settings = client.Configuration()
    try:
        if kube == IN_CLUSTER:
            config.load_incluster_config(settings)
        else:
            if not Path(kube).is_file():
                raise UserError(f"There is no kubeconfig {kube}.")
            config.load_kube_config(kube, client_configuration=settings)
    except ConfigException as error:
        raise UserError(f"The cluster cannot be asked for names: {error}") from None
    api = client.ApiClient(settings)
    core, discovery = client.CoreV1Api(api), client.DiscoveryV1Api(api)
    return Watcher(
        {
            "namespaces": (core.list_namespace, read_namespace),
            "nodes": (core.list_node, read_node),
            "services": (core.list_service_for_all_namespaces, read_service),
            "endpoint slices": (discovery.list_endpoint_slice_for_all_namespaces, read_slice),
            "pods": (core.list_pod_for_all_namespaces, read_pod),
        },
        node,
    )
