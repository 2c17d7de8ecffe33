"""A disk that may lose whatever was not synced, in any order: a model to be crashed at any moment.

It is fed with the calls of a process and gives the files that a power cut may leave. What it takes
for granted is what POSIX and Linux's file systems give, and no more:

- Octets of a file are safe once fsync or fdatasync of it has returned, with the size that they
  need. Until then each sector of 512 octets of each write may be there or not, on its own, and the
  size may have grown without the octets: zeros are then in their place.
- A name (made, removed, or renamed) is safe once its folder was synced. Until then each change of a
  name may be there or not, on its own; syncing a file does not make its name safe.
- A rename is one change: both names, or none. A change that is not there hinders no later one.

ALICE (Pillai et al., OSDI 2014) calls these persistence models; real file systems lose less.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.crash.syscalls import Call

SECTOR = 512
NEVER = 1 << 62


@dataclass(slots=True)
class _Change:
    """Something that was done to a file or a folder."""

    begin: int
    end: int
    safe: int = NEVER
    """When the sync that covers it returned."""


@dataclass(slots=True)
class _Write(_Change):
    offset: int = 0
    octets: bytes = b""


@dataclass(slots=True)
class _Cut(_Change):
    size: int = 0


@dataclass(slots=True)
class _Names(_Change):
    """A change of names: what appears and what vanishes, by folder."""

    made: tuple[tuple[int, str, int], ...] = ()
    gone: tuple[tuple[int, str], ...] = ()


@dataclass(slots=True)
class _Node:
    """A file or a folder, whatever its name."""

    is_folder: bool
    changes: list[_Change] = field(default_factory=list)
    names: dict[str, int] = field(default_factory=dict)
    """Of a folder, as the process sees it."""


class Disk:
    """Everything below one folder, from when it was empty."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._nodes = [_Node(is_folder=True)]
        self._names: list[_Names] = []
        self._offsets: dict[int, int] = {}
        self.syncs = 0

    def feed(self, calls: Iterable[Call]) -> None:
        """Take what a process did."""
        for call in calls:
            action = getattr(self, f"_{_ACTIONS.get(call.name, call.name)}")
            action(call)

    # ---- what a process does

    def _openat(self, call: Call) -> None:
        [path] = call.paths
        self._offsets.pop(call.descriptor, None)
        if not self._is_ours(path) or "O_DIRECTORY" in call.flags:
            return
        node = self._find(path)
        if node is None:
            assert "O_CREAT" in call.flags, path
            node = self._make(path, call, is_folder=False)
        elif "O_TRUNC" in call.flags and self._nodes[node].changes:
            self._nodes[node].changes.append(_Cut(call.begin, call.end))
        self._offsets[call.descriptor] = 0
        if "O_APPEND" in call.flags:
            self._offsets[call.descriptor] = self._size(node)

    def _write(self, call: Call) -> None:
        offset = self._offsets.get(call.descriptor)
        if offset is None or (node := self._of(call)) is None:
            return
        if call.name == "pwrite64":
            offset = call.number
        else:
            self._offsets[call.descriptor] = offset + len(call.octets)
        node.changes.append(_Write(call.begin, call.end, NEVER, offset, call.octets))

    def _lseek(self, call: Call) -> None:
        if call.descriptor in self._offsets:
            self._offsets[call.descriptor] = call.number

    def _truncate(self, call: Call) -> None:
        if (node := self._of(call)) is not None:
            node.changes.append(_Cut(call.begin, call.end, NEVER, call.number))

    def _sync(self, call: Call) -> None:
        if (node := self._of(call)) is not None:
            self.syncs += 1
            for change in node.changes:
                if change.end < call.begin:
                    change.safe = min(change.safe, call.end)

    def _mkdir(self, call: Call) -> None:
        if self._is_ours(call.paths[0]) and call.paths[0] != self._root:
            self._make(call.paths[0], call, is_folder=True)

    def _unlink(self, call: Call) -> None:
        if self._is_ours(call.paths[0]):
            folder, name = self._place(call.paths[0])
            del self._nodes[folder].names[name]
            self._note(_Names(call.begin, call.end, gone=((folder, name),)))

    def _rename(self, call: Call) -> None:
        if self._is_ours(call.paths[0]):
            (old, old_name), (new, new_name) = map(self._place, call.paths)
            node = self._nodes[old].names.pop(old_name)
            self._nodes[new].names[new_name] = node
            made, gone = ((new, new_name, node),), ((old, old_name),)
            self._note(_Names(call.begin, call.end, made=made, gone=gone))

    def _make(self, path: Path, call: Call, *, is_folder: bool) -> int:
        folder, name = self._place(path)
        node = len(self._nodes)
        self._nodes.append(_Node(is_folder))
        self._nodes[folder].names[name] = node
        self._note(_Names(call.begin, call.end, made=((folder, name, node),)))
        return node

    def _note(self, change: _Names) -> None:
        """A sync of any of its folders makes it safe: it is one transaction."""
        for folder in {place[0] for place in (*change.made, *change.gone)}:
            self._nodes[folder].changes.append(change)
        self._names.append(change)

    def _is_ours(self, path: Path) -> bool:
        return path == self._root or self._root in path.parents

    def _of(self, call: Call) -> _Node | None:
        [path] = call.paths
        node = self._find(path) if self._is_ours(path) else None
        return None if node is None else self._nodes[node]

    def _find(self, path: Path) -> int | None:
        node = 0
        for name in path.relative_to(self._root).parts:
            found = self._nodes[node].names.get(name)
            if found is None:
                return None
            node = found
        return node

    def _place(self, path: Path) -> tuple[int, str]:
        folder = self._find(path.parent)
        assert folder is not None, path
        return folder, path.name

    def _size(self, node: int) -> int:
        return len(_content(self._nodes[node].changes, NEVER, random.Random(0), 1.0))

    # ---- what a power cut leaves

    def crash(self, moment: int, chance: random.Random, target: Path) -> None:
        """Write the files that a power cut at a moment, a line of the trace, may leave."""
        names: dict[int, dict[str, int]] = {}
        moods: dict[int, float] = {}

        def mood(of: int) -> float:
            """Return how much is there of what is not safe, by file and folder: all, none, some."""
            return moods.setdefault(of, chance.choice([0.0, 0.0, 1.0, 1.0, 0.5, 0.9]))

        for change in self._names:
            folder = (change.made or change.gone)[0][0]
            if _is_there(change, moment, chance, mood(folder)):
                for of, name in change.gone:
                    names.get(of, {}).pop(name, None)
                for of, name, node in change.made:
                    names.setdefault(of, {})[name] = node
        target.mkdir()
        self._write_folder(0, target, names, moment, chance, mood)

    def _write_folder(
        self,
        folder: int,
        target: Path,
        names: Mapping[int, Mapping[str, int]],
        moment: int,
        chance: random.Random,
        mood: Callable[[int], float],
    ) -> None:
        for name, node in names.get(folder, {}).items():
            path = target / name
            if self._nodes[node].is_folder:
                path.mkdir()
                self._write_folder(node, path, names, moment, chance, mood)
            else:
                path.write_bytes(_content(self._nodes[node].changes, moment, chance, mood(node)))


def _is_there(change: _Change, moment: int, chance: random.Random, mood: float) -> bool:
    """Tell whether a change, or a sector of it, is on the disk."""
    if change.begin >= moment:
        return False
    return change.safe < moment or chance.random() < mood


def _content(changes: list[_Change], moment: int, chance: random.Random, mood: float) -> bytes:
    """Return the octets of a file."""
    octets = bytearray()
    size = 0
    for change in changes:
        if isinstance(change, _Cut):
            if _is_there(change, moment, chance, mood):
                size = change.size
                del octets[size:]
                octets.extend(bytes(size - len(octets)))
            continue
        assert isinstance(change, _Write)
        begin, end = change.offset, change.offset + len(change.octets)
        if change.begin < moment:
            size = max(size, end)
        while begin < end:
            stop = end if change.safe < moment else min(end, (begin // SECTOR + 1) * SECTOR)
            if _is_there(change, moment, chance, mood):
                octets.extend(bytes(max(0, stop - len(octets))))
                start = begin - change.offset
                octets[begin:stop] = change.octets[start : start + stop - begin]
            begin = stop
    if chance.random() < 0.3:
        octets.extend(bytes(max(0, size - len(octets))))
    return bytes(octets)


_ACTIONS = {
    "pwrite64": "write",
    "writev": "write",
    "ftruncate": "truncate",
    "fsync": "sync",
    "fdatasync": "sync",
    "renameat": "rename",
    "unlinkat": "unlink",
    "rmdir": "unlink",
}
