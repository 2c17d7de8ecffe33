"""Which ports of the node the containers on its network listen on, where that may be looked at.

A pod on its node's network need not declare its ports. /proc says which process has a socket, and
the process's cgroup names its container. For that an agent has to see the node's processes
(hostPID) and their descriptors (CAP_SYS_PTRACE); without, pods are known by what they declare.
https://man7.org/linux/man-pages/man5/proc_net.5.html
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

PROC = Path("/proc")

TABLES = {"tcp": "0A", "tcp6": "0A", "udp": "07", "udp6": "07"}
"""Tables of sockets, and the state of one that waits for others: LISTEN, and of UDP unconnected."""

MOST_SOCKETS = 65_536
"""Read of a table: there are not more ports."""

MOST_PROCESSES = 32_768
"""Looked at: the kernel's own default for a node."""

_CONTAINER = re.compile(r"[0-9a-f]{64}")
_SOCKET = re.compile(r"socket:\[([0-9]+)\]")


def container_ports(proc: Path = PROC) -> dict[str, frozenset[int]]:
    """Return ports by the id of the container that listens on them; none where that is forbidden.

    Only processes in our own network namespace count, which is to be the node's.
    """
    waiting = dict(_waiting(proc))
    found: defaultdict[str, set[int]] = defaultdict(set)
    own = _link(proc / "self/ns/net")
    processes = (entry for entry in _entries(proc) if entry.isdecimal())
    for _, process in zip(range(MOST_PROCESSES), processes, strict=False):
        if not own or _link(proc / process / "ns/net") != own:
            continue
        ports = {waiting[inode] for inode in _sockets(proc / process) if inode in waiting}
        container = _container(proc / process) if ports else ""
        if container:
            found[container] |= ports
    return {container: frozenset(ports) for container, ports in found.items()}


def _waiting(proc: Path) -> Iterator[tuple[str, int]]:
    """Yield inode and port of sockets that others can reach."""
    for table, state in TABLES.items():
        try:
            with (proc / "self/net" / table).open() as lines:
                for _, line in zip(range(MOST_SOCKETS), lines, strict=False):
                    fields = line.split()
                    if len(fields) > 9 and fields[3] == state:
                        yield fields[9], int(fields[1].rpartition(":")[2], 16)
        except (OSError, ValueError):
            continue


def _sockets(process: Path) -> Iterator[str]:
    for descriptor in _entries(process / "fd"):
        match = _SOCKET.fullmatch(_link(process / "fd" / descriptor))
        if match:
            yield match[1]


def _container(process: Path) -> str:
    """Return the id that its cgroup ends with, "" for a process of no container."""
    try:
        found = _CONTAINER.findall((process / "cgroup").read_text())
    except (OSError, ValueError):
        return ""
    return found[-1] if found else ""


def _entries(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)  # noqa: PTH208 - names, a few thousand times
    except OSError:
        return []


def _link(path: Path) -> str:
    try:
        return os.readlink(path)  # noqa: PTH115
    except OSError:
        return ""
