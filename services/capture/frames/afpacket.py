"""Frames from an interface of Linux, through a TPACKET_V3 ring that is mapped into NumPy.

See packet(7) and Documentation/networking/packet_mmap.rst. The ring is made of blocks; the kernel
fills one, hands it over when it is full or old enough, and gets it back when its frames were read.

A VLAN tag that the interface took off is in the row, not in the octets: frames are as the network
stack sees them.
"""

import contextlib
import ctypes
import errno
import mmap
import os
import select
import socket
import struct
import time
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from services.capture.frames import ringwalk
from services.capture.frames.batch import (
    FRAME,
    LATEST_NS,
    MOST_FRAMES,
    MOST_OCTETS,
    CaptureError,
    FrameBatch,
    Loss,
)
from services.capture.frames.walk import LARGEST_FRAME

ANY = "any"
"""Instead of an interface: all of them, those that appear later too."""

BLOCK_SIZE = 1024 * 1024
"""Octets. Larger than any frame, and a few thousand packets for one system call.

At most MOST_FRAMES packets fit: each takes ringwalk.SMALLEST_SLOT octets or more.
"""
BLOCK_COUNT = 64
"""64 MiB of ring: half a second of 1 Gbit/s, while the reader is busy."""
MOST_BLOCKS = MOST_OCTETS // BLOCK_SIZE
"""Blocks of one batch."""
BLOCK_TIMEOUT_MS = 40
"""How long the kernel waits for a block to fill before it hands it over.

On a quiet wire each block holds what came within this time, so the ring lasts for as long as the
reader may be kept from reading: 64 of them are 2.6 s. What is seen is later by this much at most.
"""
POLL_TIMEOUT_MS = 100
GATHER_SECONDS = 0.02
"""How long blocks are gathered into one batch. A batch costs a fraction of a millisecond, whatever
is in it; on a busy wire that would be more than its packets cost."""

MOST_INSTRUCTIONS = 4096
"""Of a BPF program: BPF_MAXINSNS of linux/bpf_common.h."""

# linux/if_packet.h and asm-generic/socket.h
SOL_PACKET = 263
PACKET_RX_RING, PACKET_STATISTICS, PACKET_VERSION, PACKET_IGNORE_OUTGOING = 5, 6, 10, 23
PACKET_FANOUT, PACKET_FANOUT_HASH, PACKET_FANOUT_FLAG_DEFRAG = 18, 0, 0x8000
TPACKET_V3 = 2
SO_ATTACH_FILTER = 26
ETH_P_ALL = 0x0003
NOMINAL_FRAME_SIZE = 2048  # a V3 ring packs frames as they come; the kernel only checks it
TP_STATUS_USER = 1
BLOCK_STATUS, BLOCK_PACKETS, BLOCK_FIRST_PACKET, BLOCK_SEQUENCE = (
    8,
    12,
    16,
    24,
)  # struct tpacket_hdr_v1
BPF_RETURN_CONSTANT = 0x06
LOOPBACK = "lo"

Instruction = tuple[int, int, int, int]
"""Of classic BPF: code, jump if true, jump if false, constant. As `tcpdump -ddd` prints them."""

NO_CAPABILITY = (
    "capturing from an interface needs the capability CAP_NET_RAW, which this process does not "
    "have; run it as root, or grant it: `setcap cap_net_raw+ep` on a copy of the Python binary, "
    "`docker run --cap-add NET_RAW`, or `securityContext.capabilities.add: [NET_RAW]` in the chart"
)


class Counts(NamedTuple):
    """What a source has seen since it was opened."""

    frames: int
    loopback_copies: int
    """Left out: the loopback interface shows every packet when it is sent and when it arrives."""
    unknown_link_layer: int
    """Left out: neither Ethernet nor IPv4 or IPv6."""
    dropped: int
    """By the kernel, because the ring was full; as far as losses() was asked."""
    freezes: int
    """How often the ring was full."""


def missing_capability() -> str | None:
    """Return None if this process may capture, else a sentence that says what it lacks."""
    try:
        _packet_socket().close()
    except CaptureError as error:
        return str(error)
    return None


def _packet_socket() -> socket.socket:
    """Open a packet socket that receives nothing before it is bound. Raises CaptureError."""
    if not hasattr(socket, "AF_PACKET"):
        raise CaptureError("capturing from an interface needs Linux; read a capture file instead")
    try:
        return socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    except PermissionError:
        raise CaptureError(NO_CAPABILITY) from None
    except OSError as error:
        raise CaptureError(f"this system gives no packet sockets: {error.strerror}") from None


class AfPacket:
    """A FrameSource over one interface, or all of them.

    Frames lie in the ring itself; their blocks go back to the kernel when the next batch is asked
    for. A batch that is held longer shows other packets.
    """

    def __init__(
        self,
        interface: str = ANY,
        *,
        program: Sequence[Instruction] | None = None,
        snaplen: int = LARGEST_FRAME,
        block_count: int = BLOCK_COUNT,
        fanout_group: int | None = None,
        one_of_several: bool = False,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        """Capture from now on.

        program: what the kernel keeps; None for everything. snaplen: octets kept of a frame.
        block_count: blocks of BLOCK_SIZE in the ring. fanout_group: share the packets with all
        sockets of this 16-bit number on the same interface, whole flows each. one_of_several: other
        interfaces are captured as well, so frames say which one they are from, as on "any". clock:
        nanoseconds since 1970, as the kernel's frames have them. Raises CaptureError.
        """
        if not 1 <= snaplen <= LARGEST_FRAME:
            raise CaptureError(f"a snaplen of {snaplen} octets; it can be 1 to {LARGEST_FRAME}")
        self.interface = interface
        self._snaplen = snaplen
        self._index = _interface_index(interface)
        self._block_count = block_count
        self._batch_blocks = min(MOST_BLOCKS, max(1, block_count // 4))  # the kernel needs some
        # In which order packets came on interfaces with a ring each, nobody knows.
        self._tell = ringwalk.TELL_NUMBER if one_of_several else ringwalk.TELL_NOTHING
        if interface == ANY:
            self._tell = ringwalk.TELL_PLACE
        self._frames = np.zeros(MOST_FRAMES, FRAME)
        self._counts = np.zeros(ringwalk.COUNTS, np.int64)
        self._unknown_told = 0
        self._frame_count = self._dropped = self._freezes = 0
        self._next_block = 0
        self._sequence = 1  # of the next block
        self._losses: list[Loss] = []
        self._clock = clock
        self._asked_ns = clock()
        self._closed = False
        self._socket = _packet_socket()
        try:
            self._open_ring(program)
            if fanout_group is not None:
                self._share(fanout_group)
        except BaseException:
            self._socket.close()
            raise

    def _open_ring(self, program: Sequence[Instruction] | None) -> None:
        size = BLOCK_SIZE * self._block_count
        frames = size // NOMINAL_FRAME_SIZE
        request = (
            BLOCK_SIZE,
            self._block_count,
            NOMINAL_FRAME_SIZE,
            frames,
            BLOCK_TIMEOUT_MS,
            0,
            0,
        )
        try:
            self._socket.setsockopt(SOL_PACKET, PACKET_VERSION, TPACKET_V3)
            self._socket.setsockopt(SOL_PACKET, PACKET_RX_RING, struct.pack("7I", *request))
            self._mapping = mmap.mmap(self._socket.fileno(), size)
        except OSError as error:
            raise CaptureError(
                f"the kernel gives no ring of {size >> 20} MiB: {error.strerror}; "
                "a smaller one may do"
            ) from None
        self._octets = np.frombuffer(self._mapping, np.uint8)
        self._words = self._octets.view(np.uint32)
        self._halves = self._octets.view(np.uint16)
        if self.interface == LOOPBACK:  # the walk leaves them out as well, on "any" for instance
            self._socket.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
        self.attach(program)
        self._walk(0, 0, 0)  # compiles the kernel while nothing can be dropped yet
        self._bind()
        self._poll = select.poll()
        self._poll.register(self._socket.fileno(), select.POLLIN | select.POLLERR)

    def _bind(self) -> None:
        """Begin to receive. Python's bind() wants a name, and "any" has none, only the index 0."""
        address = struct.pack(
            "=HHiHBB8s", socket.AF_PACKET, socket.htons(ETH_P_ALL), self._index, 0, 0, 0, b""
        )
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.bind(self._socket.fileno(), address, len(address)) != 0:
            reason = os.strerror(ctypes.get_errno())
            raise CaptureError(f"cannot capture from {self.interface}: {reason}")

    def _share(self, group: int) -> None:
        """Get only the flows that the kernel's hash gives to this socket of the group.

        The hash is the same for both directions of a flow. Fragments are put together first.
        """
        kind = PACKET_FANOUT_HASH | PACKET_FANOUT_FLAG_DEFRAG
        try:
            self._socket.setsockopt(SOL_PACKET, PACKET_FANOUT, struct.pack("HH", group, kind))
        except OSError as error:
            raise CaptureError(
                f"the kernel does not share {self.interface} between workers: {error.strerror}"
            ) from None

    def attach(self, program: Sequence[Instruction] | None) -> None:
        """Change what the kernel keeps, without a gap; None for everything. Raises CaptureError.

        A program is compiled for the link layer of the interface. Packets that are in the ring
        already still come.
        """
        instructions = list(program) if program else [(BPF_RETURN_CONSTANT, 0, 0, LARGEST_FRAME)]
        if len(instructions) > MOST_INSTRUCTIONS:
            raise CaptureError(
                f"a BPF program of {len(instructions)} instructions; it can have "
                f"{MOST_INSTRUCTIONS}"
            )
        try:
            packed = b"".join(
                struct.pack("HBBI", code, true, false, self._shortened(code, constant))
                for code, true, false, constant in instructions
            )
            octets = ctypes.create_string_buffer(packed)
            program_header = struct.pack("HL", len(instructions), ctypes.addressof(octets))
            self._socket.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, program_header)
        except (OSError, struct.error, ValueError, TypeError) as error:
            raise CaptureError(f"the kernel refuses the BPF program: {error}") from None

    def _shortened(self, code: int, constant: int) -> int:
        """What a program returns is the octets kept: at most the snaplen."""
        return min(constant, self._snaplen) if code == BPF_RETURN_CONSTANT else constant

    def batches(self, *, wait: bool = True) -> Iterator[FrameBatch]:
        """Yield the frames of one or several blocks; an empty batch after POLL_TIMEOUT_MS.

        wait: False for an empty batch at once. Raises CaptureError when the interface is gone.
        """
        while not self._closed:
            if wait and not self._is_ready(self._batch_blocks) and self._wait(POLL_TIMEOUT_MS):
                time.sleep(GATHER_SECONDS)
            looked_ns = self._clock()  # before, or what came while this process slept is missed
            rows, blocks = self._take_blocks()
            passed_ns = 0 if blocks else looked_ns - LATEST_NS
            self._frame_count += rows
            try:
                yield FrameBatch(self._octets, self._frames[:rows], passed_ns)
            finally:
                self._release(blocks)

    def _take_blocks(self) -> tuple[int, int]:
        """Fill rows from the blocks that are ready; return how many of both."""
        rows = blocks = 0
        while blocks < self._batch_blocks and self._is_ready(blocks + 1):
            start = (self._next_block + blocks) % self._block_count * BLOCK_SIZE
            header = self._words[start >> 2 : start + BLOCK_SEQUENCE + 8 >> 2]
            packets = int(header[BLOCK_PACKETS >> 2])
            if rows + packets > MOST_FRAMES and blocks > 0:
                break
            self._check_sequence(int(header[BLOCK_SEQUENCE >> 2 :].view(np.uint64)[0]))
            rows = self._walk(start, packets, rows)
            blocks += 1
        return rows, blocks

    def _is_ready(self, blocks: int) -> bool:
        """Whether the kernel has handed over so many blocks."""
        start = (self._next_block + blocks - 1) % self._block_count * BLOCK_SIZE
        return bool(self._words[start + BLOCK_STATUS >> 2] & TP_STATUS_USER)

    def _walk(self, start: int, packets: int, rows: int) -> int:
        """Add rows for the packets of the block at `start`; return how many there are then."""
        return ringwalk.walk_block(
            self._octets,
            self._words,
            self._halves,
            start + int(self._words[start + BLOCK_FIRST_PACKET >> 2]),
            start + BLOCK_SIZE,
            packets,
            self._tell,
            self._frames,
            rows,
            self._counts,
        )

    def _check_sequence(self, sequence: int) -> None:
        """Blocks are numbered; a number that is not the next one is a block that nobody saw."""
        if sequence != self._sequence:
            now = self._clock()
            detail = f"block {sequence} of the ring came where {self._sequence} was expected"
            self._losses.append(Loss("kernel_drop", self._asked_ns, now, detail=detail))
        self._sequence = sequence + 1

    def _release(self, blocks: int) -> None:
        """Give the kernel blocks back."""
        if self._closed:
            return
        for _ in range(blocks):
            self._words[(self._next_block * BLOCK_SIZE + BLOCK_STATUS) >> 2] = 0
            self._next_block = (self._next_block + 1) % self._block_count

    def _wait(self, timeout_ms: int) -> bool:
        """Wait for a block; return whether there is one."""
        events = self._poll.poll(timeout_ms)
        if not events or not events[0][1] & select.POLLERR:
            return bool(events)
        error = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if error not in (0, errno.ENETDOWN):
            raise CaptureError(f"capturing from {self.interface} failed: {os.strerror(error)}")
        if self.is_gone:
            raise CaptureError(f"the interface {self.interface} is gone")
        # It is down: it may come up again, and the socket is then still bound to it.
        return False

    @property
    def is_gone(self) -> bool:
        """The interface does not exist any more; another one may have its name."""
        return self.interface != ANY and _index_now(self.interface) != self._index

    def fileno(self) -> int:
        """Return the descriptor that is readable when there are frames."""
        return self._socket.fileno()

    def losses(self) -> list[Loss]:
        """Return what was lost since the last call: kernel_drop, and unknown_link for what was left
        out since nobody here reads its link layer.
        """
        found, self._losses = self._losses, []
        since, self._asked_ns = self._asked_ns, self._clock()
        if self._closed:
            return found
        statistics = self._socket.getsockopt(SOL_PACKET, PACKET_STATISTICS, 12)
        _, dropped, freezes = struct.unpack("3I", statistics)
        self._dropped += dropped
        self._freezes += freezes
        if dropped or freezes:
            size = BLOCK_SIZE * self._block_count >> 20
            detail = f"the ring of {self.interface} ({size} MiB) was full, {freezes} times"
            found.append(Loss("kernel_drop", since, self._asked_ns, dropped, detail=detail))
        unknown = int(self._counts[ringwalk.UNKNOWN_LINK_LAYER])
        if unknown > self._unknown_told:
            hardware, ethertype = self._counts[ringwalk.UNKNOWN_HARDWARE :].tolist()
            detail = (
                f"neither Ethernet nor IP on {self.interface}; the last one: hardware type "
                f"{hardware} (ARPHRD_ of linux/if_arp.h), protocol {ethertype:#06x}"
            )
            count = unknown - self._unknown_told
            found.append(Loss("unknown_link", since, self._asked_ns, count, detail=detail))
            self._unknown_told = unknown
        return found

    @property
    def counts(self) -> Counts:
        """What was seen since the source was opened."""
        return Counts(
            self._frame_count,
            int(self._counts[ringwalk.LOOPBACK_COPIES]),
            int(self._counts[ringwalk.UNKNOWN_LINK_LAYER]),
            self._dropped,
            self._freezes,
        )

    def close(self) -> None:
        """Close the socket and unmap the ring; while a batch is held, its octets stay readable."""
        if self._closed:
            return
        self._closed = True
        self._poll.unregister(self._socket.fileno())
        self._octets = self._octets[:0].copy()
        self._words, self._halves = self._octets.view(np.uint32), self._octets.view(np.uint16)
        with contextlib.suppress(BufferError):  # a batch that is held: unmapped when it is let go
            self._mapping.close()
        self._socket.close()


def _interface_index(interface: str) -> int:
    """Return the index to bind to, 0 for "any". Raises CaptureError."""
    if interface == ANY:
        return 0
    index = _index_now(interface)
    if index == 0:
        names = ", ".join(name for _, name in socket.if_nameindex())
        raise CaptureError(f"there is no interface {interface!r}; there are {ANY}, {names}")
    return index


def _index_now(interface: str) -> int:
    try:
        return socket.if_nametoindex(interface)
    except (OSError, ValueError):
        return 0
