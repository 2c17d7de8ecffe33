"""What a process does to files, from a trace of strace -f -y -xx.

Each operation has a begin and an end, counted in lines of the trace: threads overlap. A sync makes
safe what had ended before it began; what has begun may be on disk.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

CALLS = (
    "openat,write,pwrite64,writev,fsync,fdatasync,rename,renameat,unlink,unlinkat,mkdir,rmdir,"
    "ftruncate,truncate,lseek"
)

_LINE = re.compile(r"(\d+) +(.*)")
_TEXT = re.compile(r'"((?:\\x[0-9a-f]{2})*)"(\.\.\.)?')
_FILE = re.compile(r"^(\d+)<((?:\\x[0-9a-f]{2})*)>")
_AT = re.compile(r"AT_FDCWD<[^>]*>|\d+<((?:\\x[0-9a-f]{2})*)>")


@dataclass(slots=True)
class Call:
    """One call that succeeded."""

    name: str
    begin: int
    end: int
    paths: list[Path] = field(default_factory=list)
    """What it is about; of a descriptor, what that was at the time."""
    descriptor: int = -1
    octets: bytes = b""
    number: int = 0
    """The offset of a pwrite, the length of a truncate."""
    flags: str = ""


def command(trace: Path, program: list[str]) -> list[str]:
    """Return the command that runs a program and writes its trace."""
    only = ["-e", "signal=none", "-e", f"trace={CALLS}"]
    whole = ["-y", "-xx", "-s", str(1 << 26)]
    return ["strace", "-f", "--seccomp-bpf", *whole, *only, "-o", str(trace), *program]


def read(trace: Path) -> Iterator[Call]:
    """Yield what was done to files and folders, in the order in which it began; opened: ended."""
    waiting: dict[str, tuple[int, str]] = {}
    found: list[Call] = []
    with trace.open(encoding="ascii") as lines:
        for number, line in enumerate(lines):
            match = _LINE.match(line)
            if match is None:
                continue
            thread, text = match.groups()
            begin = number
            if text.endswith("<unfinished ...>"):
                waiting[thread] = (number, text.removesuffix("<unfinished ...>"))
                continue
            if text.startswith("<... "):
                begin, before = waiting.pop(thread)
                text = before + text.partition("resumed>")[2]
            call = _parse(text, begin, number)
            if call is not None:
                found.append(call)
    end = 1 << 62  # those that never returned
    found += [c for begin, text in waiting.values() if (c := _parse(text + ") = 0", begin, end))]
    # A descriptor means its file from the end of the call that opened it: until then another thread
    # may still write to what has the number, and close it.
    yield from sorted(found, key=lambda call: call.end if call.name == "openat" else call.begin)


def _parse(text: str, begin: int, end: int) -> Call | None:
    head, _, result = text.rpartition(" = ")
    name, _, arguments = head.partition("(")
    if not head or result.startswith(("-1", "?")):
        return None
    call = Call(name, begin, end)
    if match := _FILE.match(arguments):
        call.descriptor = int(match[1])
        call.paths = [_path(match[2])]
    texts = _TEXT.findall(arguments)
    assert not any(cut for _, cut in texts), "the trace was cut"
    if name in ("write", "writev", "pwrite64"):
        call.octets = b"".join(_octets(octets) for octets, _ in texts)
        assert len(call.octets) >= int(result.split()[0]) or end == 1 << 62
        if name == "pwrite64":
            call.number = int(arguments.rstrip(") ").rpartition(", ")[2])
        elif end != 1 << 62:
            call.octets = call.octets[: int(result.split()[0])]
    elif name in ("ftruncate", "truncate"):
        call.number = int(arguments.rstrip(") ").rpartition(", ")[2])
        call.paths = call.paths or [_path(texts[0][0])]
    elif name == "lseek":
        call.number = int(result.split()[0])
    elif name == "openat":
        call.flags = arguments
        call.paths = _below(arguments, texts)
        opened = _FILE.match(result)
        if opened is None:
            return None
        call.descriptor = int(opened[1])
    elif name not in ("fsync", "fdatasync"):
        call.paths = _below(arguments, texts)
        call.flags = arguments
    return call


def _below(arguments: str, texts: list[tuple[str, str]]) -> list[Path]:
    """Return the paths of a call; relative ones are below the folder whose descriptor is given."""
    paths = [_path(text) for text, _ in texts]
    folders = [match[1] for match in _AT.finditer(arguments)]
    for number, path in enumerate(paths):
        if not path.is_absolute() and number < len(folders) and folders[number]:
            paths[number] = _path(folders[number]) / path
    return paths


def _octets(text: str) -> bytes:
    return bytes.fromhex(text.replace("\\x", ""))


def _path(text: str) -> Path:
    return Path(os.fsdecode(_octets(text)))
