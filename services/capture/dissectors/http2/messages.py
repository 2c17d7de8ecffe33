# mypy: ignore-errors
"""Counts the messages of one side of a gRPC call, as its DATA comes.

Whether it is gRPC may be known only at the end, so the messages of all bodies are looked for; most
others are none from their first octet.
"""

import numpy as np

from services.capture.dissectors.http2.rows import SIZES, keep_of_half
from services.capture.kernel import kernel, read_u8, read_u32

HEAD = 5  # octets before each message: whether it is compressed, and its length
MOST_SIZES = 100  # messages of which the size is told; all of them count
SIZE = 4  # octets of a size


@kernel
def lose(half):
    """Where the next message begins is not known."""
    half.lost = half.was_lost = 1
    half.left = half.head = half.message_head = 0


@kernel
def begin(f, row, half):
    """The head of a message is whole."""
    flag = half.message_head >> 32
    half.left = half.message_head & 0xFFFFFFFF
    half.head = half.message_head = 0
    if flag > 1:
        lose(half)
        return
    half.messages += 1
    half.compressed += flag
    if half.messages <= MOST_SIZES:
        for index in range(SIZE):
            f.small[np.uint64(index)] = half.left >> 8 * (SIZE - 1 - index) & 0xFF
        keep_of_half(f, row, SIZES, f.small, 0, SIZE, SIZE * MOST_SIZES)


@kernel
def feed(f, row, half, octets, at, length, frame):
    """Take the next octets; frame: how long the frame is that begins here, 0 if none does."""
    end = at + length
    if half.lost:
        if not frame or length < HEAD:
            return
        # Most frames of DATA hold one message.
        if read_u8(octets, at) > 1 or read_u32(octets, at + 1) + HEAD != frame:
            return
        half.lost = 0
    while at < end and not half.lost:
        if half.left > 0:
            taken = min(half.left, end - at)
            half.left -= taken
            at += taken
        else:
            half.message_head = half.message_head << 8 | read_u8(octets, at)
            half.head += 1
            at += 1
            if half.head == HEAD:
                begin(f, row, half)


@kernel
def skip(half, octets):
    """So many octets are missing, 0 for not known."""
    if 0 < octets <= half.left:
        half.left -= octets
    else:
        lose(half)


@kernel
def is_whole(half):
    """Whether there are messages, and nothing else."""
    return half.messages > 0 and not (half.was_lost or half.left > 0 or half.head > 0)
