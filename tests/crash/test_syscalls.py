"""What is read from a trace, and in which order."""

from __future__ import annotations

import random
from pathlib import Path

from tests.crash import syscalls
from tests.crash.disk import Disk


def quoted(text: str) -> str:
    return "".join(f"\\x{octet:02x}" for octet in text.encode())


def test_a_number_is_of_the_file_that_had_it_at_the_time(tmp_path: Path) -> None:
    data = tmp_path / "data"
    old, new = quoted(f"{data}/old"), quoted(f"{data}/new")
    trace = tmp_path / "trace"
    trace.write_text(
        f'1 openat(AT_FDCWD, "{old}", O_WRONLY|O_CREAT) = 7<{old}>\n'
        f'1 write(7<{old}>, "{quoted("first")}", 5) = 5\n'
        f'2 openat(AT_FDCWD, "{new}", O_WRONLY|O_CREAT <unfinished ...>\n'
        f'1 write(7<{old}>, "{quoted("second")}", 6) = 6\n'
        f"1 fsync(7<{old}>) = 0\n"  # and closes it
        f"2 <... openat resumed>) = 7<{new}>\n"
        f'2 write(7<{new}>, "{quoted("third")}", 5) = 5\n'
        f"2 fsync(7<{new}>) = 0\n"
        f"2 fsync(8<{quoted(str(data))}>) = 0\n"
    )
    disk = Disk(data)
    disk.feed(syscalls.read(trace))
    disk.crash(1 << 60, random.Random(1), tmp_path / "left")
    assert (tmp_path / "left" / "old").read_bytes() == b"firstsecond"
    assert (tmp_path / "left" / "new").read_bytes() == b"third"
