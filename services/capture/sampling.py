# mypy: ignore-errors
"""A sample of the streams: each is in it whole or not at all. The pipeline calls it behind decode.

Whether a stream is in the sample follows from its five-tuple alone: no seed, no time, no network,
and both directions alike. So all nodes and workers choose the same streams, that of the client and
that of the server, and a five-tuple that is used again is decided as before. That is asked of each
packet: to work it out takes less than to find the flow, and flows that are left out need no row.
"""

import math

import numpy as np

from services.capture.decode import fill_undecoded
from services.capture.flows import hash_five_tuple, mix
from services.capture.fragments import NO_ROW
from services.capture.frames.batch import Loss
from services.capture.headers import DECODED, FRAGMENT, LEFT_OUT
from services.capture.kernel import kernel

ALL_STREAMS = 100.0  # percent

WHOLE = 1 << 32
"""As the share of a sample: every hash is below it."""
SEED = np.uint64(0x13198A2E03707344)  # of every node: another one would be another sample
LAST_WORD = np.uint64(0xA4093822299F31D0)  # mixed in last, so that near ports are not near hashes

# fmt: off
SAMPLE = np.dtype((np.record, [
    ("share", np.uint64),    # streams whose hash is below it are in the sample; of WHOLE
    ("packets", np.int64),   # that were left out since somebody asked
    ("octets", np.int64),    # of their frames
    ("first", np.int64),     # nanoseconds since 1970: the first of them, and the last
    ("last", np.int64),
]))
# fmt: on


@kernel
def is_in_sample(key, share):
    """Whether a stream with the five-tuple of this KEY is in the sample."""
    return mix(hash_five_tuple(SEED, key), LAST_WORD) >> np.uint64(32) < share


@kernel
def count_left_out(state, frame):
    """Count a FRAME."""
    state.first = frame.timestamp if state.packets == 0 else min(state.first, frame.timestamp)
    state.last = frame.timestamp if state.packets == 0 else max(state.last, frame.timestamp)
    state.packets += 1
    state.octets += frame.captured_length


@kernel
def leave_out(frames, packets, keys, fragments, sample):
    """Take the packets out that are not in the sample, and the fragments that they came in.

    packets and keys: as decode_frames has filled them from `frames`. The last row first, since a
    fragment is decided by the packet that it is of, which is in a later row.
    """
    state = sample[0]
    for row in range(len(packets) - 1, -1, -1):
        packet = packets[np.uint64(row)]
        is_out = False
        if packet.status == DECODED:
            is_out = not is_in_sample(keys[np.uint64(row)], state.share)
        elif packet.status == FRAGMENT and packet.payload_offset != NO_ROW:
            is_out = packets[np.uint64(packet.payload_offset)].status == LEFT_OUT
        if is_out:
            fill_undecoded(packet, LEFT_OUT)
            count_left_out(state, frames[np.uint64(row)])
    for index in range(fragments.state[0].late):
        row = fragments.late_streams[np.uint64(index)]  # no stream yet, see fragments
        if packets[np.uint64(row)].status == LEFT_OUT:
            count_left_out(state, fragments.late[np.uint64(index)])


def new_sample(percent: float) -> np.ndarray:
    """Make a SAMPLE of one element, of `percent` of the streams: above 0, 100 at most."""
    sample = np.zeros(1, SAMPLE)
    sample["share"] = math.ceil(percent / ALL_STREAMS * WHOLE)  # so that none is none of them
    return sample


def left_out(sample: np.ndarray, percent: float) -> Loss | None:
    """Return what was left out since the last call, if anything was."""
    state = sample[0]
    if not state.packets:
        return None
    first, last = int(state.first), int(state.last)
    counted = int(state.packets), int(state.octets)
    state.packets = state.octets = 0
    return Loss("sampled", first, last, *counted, detail=described(percent))


def described(percent: float) -> str:
    """Say what a sample is, for whoever counts what is in it."""
    return (
        f"{percent:.9g} percent of the streams are looked at, whole, chosen by their addresses and "
        "ports; counts are of these"
    )
