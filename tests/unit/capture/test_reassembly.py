"""Segments put in order: what was sent is what is delivered, and what is missing is told."""

import itertools
import random

import numpy as np
import pytest

from services.capture import flows as table
from services.capture.decode import decode_frames, new_packets
from services.capture.fragments import new_fragments
from services.capture.reassembly import (
    CLOSED,
    DATA,
    ENDED,
    GAP,
    IN_HELD,
    OPENED,
    end_all,
    end_idle,
    make_room,
    new_reassembler,
    new_segments,
    reassemble,
)
from services.capture.timewheel import SECOND
from tests.unit.capture import conversation as wire
from tests.unit.capture.conversation import ACK, MILLISECOND, START, Conversation

NAMES = {GAP: "gap", OPENED: "opened", CLOSED: "closed", ENDED: "ended"}


class Assembly:
    """Feeds frames through decode and reassembly, and keeps a transcript for each direction."""

    def __init__(self, most_flows=64, rows=1, **options):
        self.flows = table.new_flows(most_flows)
        self.streams = table.new_streams(4 * most_flows)
        self.reassembler = new_reassembler(most_flows, **options)
        self.segments = new_segments(rows)
        self.events = []

    def take(self, frames, start=START):
        batch = wire.batch(frames, start=start)
        packets = new_packets(len(frames))
        keys = table.new_keys(len(frames))
        decode_frames(batch.octets, batch.frames, packets, keys, self.flows, new_fragments())
        done = 0
        while done < len(packets):
            first, done = done, table.find_flows(packets, keys, done, self.flows)
            row, part = 0, packets[first:done]
            while row < len(part):
                row, filled = reassemble(
                    self.reassembler, batch.octets, part, row, self.flows, self.streams,
                    self.segments,
                )  # fmt: skip
                self._note(batch.octets, filled)
            if done < len(packets):
                self._end(make_room, int(batch.frames["timestamp"][done]), 1)
        return self

    def end(self):
        """As when the capture ends."""
        number = 0
        while number < self.flows.counts[table.ROWS_USED]:
            number, filled = end_all(
                self.reassembler, self.flows, self.streams, number, self.segments
            )
            self._note(np.zeros(0, np.uint8), filled)
        return self

    def sweep(self, now):
        return self._end(end_idle, now)

    def _end(self, kernel, *arguments):
        is_done = False
        while not is_done:
            is_done, filled = kernel(
                self.reassembler, self.flows, self.streams, *arguments, self.segments
            )
            self._note(np.zeros(0, np.uint8), filled)
        return self

    def _note(self, octets, filled):
        for row in self.segments[:filled]:
            place = self.reassembler.octets if row["place"] == IN_HELD else octets
            data = place[row["position"] :][: row["length"]].tobytes()
            what = data if row["kind"] == DATA else (NAMES[int(row["kind"])], int(row["length"]))
            self.events.append((int(row["stream"]), int(row["direction"]), what))

    def sent(self, direction):
        """The transcript of one direction: octets joined, other events between them."""
        events = [what for _, where, what in self.events if where == direction]
        joined = []
        for is_data, group in itertools.groupby(events, lambda what: isinstance(what, bytes)):
            events = list(group)
            joined += [b"".join(events)] if is_data else events
        return joined


OPEN, CLOSE = ("opened", 0), ("closed", 0)


def test_a_conversation_in_order_is_delivered_as_it_came():
    talk = Conversation().open().client(b"hello", 2).server(b"world", 2).close()
    assembly = Assembly().take(talk.frames)
    assert assembly.sent(0) == [OPEN, b"hello", CLOSE]
    assert assembly.sent(1) == [OPEN, b"world", CLOSE]


@pytest.mark.parametrize("seed", range(40))
def test_swapped_and_doubled_packets_change_nothing(seed):
    chance = random.Random(seed)
    talk = Conversation().open().client(bytes(range(256)) * 4, 7).close("client")
    frames = list(talk.frames)
    for _ in range(60):
        at = chance.randrange(3, len(frames) - 4)
        frames[at], frames[at + 1] = frames[at + 1], frames[at]
    for _ in range(10):
        at = chance.randrange(3, len(frames) - 3)
        frames.insert(at + chance.randrange(3), frames[at])
    assembly = Assembly().take(frames).end()
    assert b"".join(w for w in assembly.sent(0) if isinstance(w, bytes)) == bytes(range(256)) * 4
    assert ("gap", 0) not in assembly.sent(0)


def test_sequence_numbers_wrap():
    talk = Conversation(first=(2**32 - 4, 2**32 - 1)).open().client(b"abcdefgh", 3).server(b"xyz")
    assembly = Assembly().take(talk.frames)
    assert assembly.sent(0) == [OPEN, b"abcdefgh"]
    assert assembly.sent(1) == [OPEN, b"xyz"]


def test_of_overlapping_segments_the_first_copy_wins():
    talk = Conversation().open().client(b"abcdef")
    again = Conversation().open().client(b"XXXXXXgh")
    assert Assembly().take(talk.frames + again.frames[3:]).sent(0) == [OPEN, b"abcdefgh"]


def test_overlap_in_what_is_held_is_not_delivered_twice():
    talk = Conversation().open().client(b"abcdefgh", 2).frames
    wide = Conversation().open().client(b"abcdefgh", 6).frames
    frames = [*talk[:3], talk[4], talk[6], wide[3], talk[5]]
    assert Assembly().take(frames).sent(0) == [OPEN, b"abcdefgh"]


def test_what_the_receiver_has_acknowledged_is_not_waited_for():
    talk = Conversation().open().client(b"abc").skip("client", 5).client(b"def").client(b"ghi")
    talk.server(b"")
    frames = [(START + number * 30 * MILLISECOND, f) for number, f in enumerate(talk.frames)]
    answer = Conversation(first=(talk.next["client"], talk.next["server"]))
    answer._send("server", wire.ACK)
    frames.append((frames[-1][0] + 50 * MILLISECOND, answer.frames[0]))
    assert Assembly().take(frames).sent(0) == [OPEN, b"abc", ("gap", 5), b"defghi"]


def test_a_gap_that_nobody_acknowledges_is_told_when_the_stream_ends():
    talk = Conversation().open().client(b"abc").skip("client", 5).client(b"def")
    assembly = Assembly().take(talk.frames)
    assert assembly.sent(0) == [OPEN, b"abc"]
    assert assembly.end().sent(0) == [OPEN, b"abc", ("gap", 5), b"def", ("ended", 0)]


def test_what_was_cut_by_the_snap_length_is_a_gap():
    talk = Conversation().open().client(b"abcdef").client(b"ghi").frames
    talk[3] = talk[3][:-4]
    assert Assembly().take(talk).sent(0) == [OPEN, b"ab", ("gap", 4), b"ghi"]


def test_a_connection_that_was_open_before_begins_with_a_gap_of_unknown_size():
    talk = Conversation().client(b"abc").server(b"def")
    assembly = Assembly().take(talk.frames)
    assert assembly.sent(0) == [OPEN, ("gap", 0), b"abc"]
    assert assembly.sent(1) == [OPEN, ("gap", 0), b"def"]


def test_the_same_five_tuple_used_again_is_another_stream():
    first = Conversation().open().client(b"one").close()
    second = Conversation(first=(50_000_000, 70_000_000)).open().client(b"two")
    assembly = Assembly().take(first.frames + second.frames)
    assert len({stream for stream, _, _ in assembly.events}) == 2
    assert assembly.sent(0) == [OPEN, b"one", CLOSE, OPEN, b"two"]


def test_a_syn_that_is_sent_again_opens_nothing():
    talk = Conversation().open()
    assembly = Assembly().take([talk.frames[0], *talk.frames, talk.frames[1]])
    assert assembly.sent(0) == [OPEN]


def test_a_reset_ends_both_sides_and_a_wild_one_ends_none():
    talk = Conversation().open().client(b"abc")
    wild = Conversation(first=(3_000_000_000, 1)).reset("client").frames
    assembly = Assembly().take(talk.frames + wild)
    assert assembly.sent(0) == [OPEN, b"abc"]
    assembly.take(talk.reset("server").frames[-1:])
    assert assembly.sent(0) == [OPEN, b"abc", CLOSE]
    assert assembly.sent(1) == [OPEN, CLOSE]


def acknowledge(talk, who):
    """What the other side has sent so far is acknowledged by `who`."""
    return talk._send(who, wire.ACK)


def test_a_fin_whose_octets_were_lost_ends_its_side_once_it_is_acknowledged():
    talk = Conversation().open().client(b"abc").skip("client", 5)._send("client", wire.FIN | ACK)
    assembly = Assembly().take(talk.frames)
    assert assembly.sent(0) == [OPEN, b"abc"]
    frames = acknowledge(talk, "server").server(b"still talking").frames
    assembly.take(frames[-2:])
    assert assembly.sent(0) == [OPEN, b"abc", ("gap", 5), CLOSE]
    assert assembly.sent(1) == [OPEN, b"still talking"]  # half closed


def test_an_acknowledged_fin_ends_the_wait_for_what_is_before_held_octets_too():
    talk = Conversation().open().skip("client", 2).client(b"abc").skip("client", 5)
    frames = acknowledge(talk._send("client", wire.FIN | ACK), "server").frames
    assert Assembly().take(frames).sent(0) == [OPEN, ("gap", 2), b"abc", ("gap", 5), CLOSE]


def test_an_acknowledgement_of_nobody_knows_what_changes_nothing():
    talk = Conversation().open().client(b"abc").skip("client", 5)._send("client", wire.FIN | ACK)
    wild = Conversation(first=(talk.next["client"] + 2**30, talk.next["server"]))
    frames = [*talk.frames, acknowledge(wild, "server").frames[0]]
    assert Assembly().take(frames).sent(0) == [OPEN, b"abc"]


@pytest.mark.parametrize(
    ("ahead", "is_believed"),
    [(0, True), (500, True), (-1, False), (-3, False), (2**20, False), (2**31, False)],
)
def test_a_reset_is_believed_where_the_receiver_would_believe_it(ahead, is_believed):
    talk = Conversation().open().client(b"abc").server(b"def")  # which acknowledges abc
    reset = Conversation(first=(talk.next["client"] + ahead, talk.next["server"])).reset("client")
    sent = Assembly().take(talk.frames + reset.frames).sent(0)
    assert sent == [OPEN, b"abc"] + [CLOSE] * is_believed


def test_a_reset_may_take_back_what_was_never_received():
    """Its number is what the receiver expects: the octets that we saw were lost behind us."""
    talk = Conversation().open().client(b"abc").server(b"def").client(b"lost")
    reset = Conversation(first=(talk.next["client"] - 4, talk.next["server"])).reset("client")
    sent = Assembly().take(talk.frames + reset.frames).sent(0)
    assert sent == [OPEN, b"abclost", CLOSE]


@pytest.mark.parametrize("jump", [2**20 + 1, -(2**20) - 1, 2**29])
def test_after_the_end_octets_further_off_are_of_the_next_connection(jump):
    old = Conversation().open().client(b"old").close()
    first = (old.next["client"] + jump, old.next["server"] + 5)
    new = Conversation(first=first).client(b"new")  # its opening was not seen
    sent = Assembly().take(old.frames + new.frames).sent(0)
    assert sent == [OPEN, b"old", CLOSE, OPEN, ("gap", 0), b"new"]


def test_octets_and_acknowledgement_that_are_both_far_off_are_of_another_connection():
    old = Conversation().open().client(b"old").server(b"old")
    new = Conversation(first=(old.next["client"] + 2**25, old.next["server"] + 2**25))
    sent = Assembly().take(old.frames + new.client(b"new").frames).sent(0)
    assert sent == [OPEN, b"old", OPEN, ("gap", 0), b"new"]


def test_a_long_gap_in_one_direction_is_a_gap():
    talk = Conversation().open().client(b"old").server(b"old").skip("client", 2**25)
    assembly = Assembly().take(talk.client(b"new").frames).end()
    assert assembly.sent(0) == [OPEN, b"old", ("gap", 2**25), b"new", ("ended", 0)]


def test_a_connection_is_picked_up_where_a_packet_begins():
    talk = Conversation().client(b"middle of a message").server(b"").client(b"GET /")
    assert Assembly().take(talk.frames[1:]).sent(0) == [OPEN, ("gap", 0), b"GET /"]


@pytest.mark.parametrize("order", list(itertools.permutations([3, 4, 5])))
@pytest.mark.parametrize("other", [b"abcXef", b"abcdefgX", b"aXcdefghi"])
def test_overlapping_segments_that_differ_are_counted(order, other):
    talk = Conversation().open().client(b"abcdefghi", 3).frames
    conflict = Conversation().open().client(other).frames[3]
    frames = [*talk[:3], *(talk[at] for at in order), conflict]
    assembly = Assembly(rows=4096).take(frames)
    assert assembly.sent(0) == [OPEN, b"abcdefghi"]
    assert assembly.reassembler.state["conflicts"][0] == 1


def test_a_segment_that_differs_from_one_that_waits_is_counted():
    talk = Conversation().open().client(b"abcdefghi", 3).frames
    conflict = Conversation().open().skip("client", 3).client(b"dXf").frames[3]
    assembly = Assembly().take([*talk[:3], talk[4]]).take([conflict, talk[3]])
    assert assembly.sent(0) == [OPEN, b"abcdef"]
    assert assembly.reassembler.state["conflicts"][0] == 1


def test_the_same_octets_again_are_no_conflict():
    talk = Conversation().open().client(b"abcdef", 2).frames
    wide = Conversation().open().client(b"abcdefgh").frames[3:]
    assembly = Assembly(rows=4096).take([*talk[:3], talk[4], talk[3], *talk[3:], *wide, *wide])
    assert assembly.sent(0) == [OPEN, b"abcdefgh"]
    assert assembly.reassembler.state["conflicts"][0] == 0


def test_a_full_table_lets_go_of_what_was_quiet_longest():
    assembly = Assembly(most_flows=4)
    talks = [Conversation(client_port=port).open().server(b"x") for port in range(1, 7)]
    for number, talk in enumerate(talks):
        assembly.take(talk.frames, START + number * SECOND)
    ended = [stream for stream, _, what in assembly.events if what == ("ended", 0)]
    opened = [stream for stream, _, what in assembly.events if what == OPEN]
    assert ended == opened[:4]  # two directions of two streams
    assert assembly.flows.counts[table.EVICTED] == 2
    talks[5].client(b"y")
    assembly.take(talks[5].frames[-1:], START + 10 * SECOND)
    assert assembly.events[-1][2] == b"y"


def test_octets_far_off_without_a_syn_are_a_new_stream():
    old = Conversation().open().client(b"old")
    new = Conversation(first=(2_000_000_000, 2_000_000_000)).client(b"new")
    assembly = Assembly().take(old.frames + new.frames)
    assert assembly.sent(0) == [OPEN, b"old", OPEN, ("gap", 0), b"new"]


def test_a_full_ring_lets_the_oldest_go():
    talks = [Conversation(client_port=port).open() for port in range(1, 40)]
    frames = []
    for talk in talks:
        frames += talk.skip("client", 1).client(b"x" * 1000).frames
    assembly = Assembly(most_held=16).take(frames).end()
    delivered = [what for _, _, what in assembly.events if what == b"x" * 1000]
    assert len(delivered) == len(talks)
    assert assembly.reassembler.state["gaps"][0] == len(talks)


def test_idle_flows_end_and_their_rows_are_used_again():
    assembly = Assembly(most_flows=4)
    for turn in range(50):
        start = START + turn * 20 * SECOND
        talk = Conversation(client_port=1000 + turn).open().client(b"x").close()
        assembly.take(talk.frames, start).sweep(start + 15 * SECOND)
    assert assembly.flows.counts[table.EVICTED] == 0
    assert sum(what == ("ended", 0) for _, _, what in assembly.events) == 100
    assert len({stream for stream, _, _ in assembly.events}) == 50
    assert (assembly.flows.slots == table.EMPTY_SLOT).all()


def test_flows_are_found_after_others_were_removed():
    """Removal moves entries of the hash table; every flow that is left must still be found."""
    chance = random.Random(1)
    assembly = Assembly(most_flows=256)
    talks = [Conversation(client_port=port).open() for port in range(1, 200)]
    for talk in talks:
        assembly.take(talk.frames, START)
    closing = chance.sample(talks, 100)
    for talk in closing:
        assembly.take(talk.close().frames[-2:], START)
    assembly.sweep(START + 15 * SECOND)
    before = int(assembly.streams.counts[table.STREAMS_OPENED])
    for talk in talks:
        if talk not in closing:
            assembly.take(talk.client(b"still here").frames[-1:], START + 16 * SECOND)
    assert int(assembly.streams.counts[table.STREAMS_OPENED]) == before


def test_packets_and_octets_of_a_stream_are_counted_from_its_first_packet():
    talk = Conversation().open().client(b"abc").server(b"defg")
    assembly = Assembly().take(talk.frames).end()
    stream = assembly.streams.rows[assembly.streams.rows["number"] != 0][0]
    assert stream["packets"].tolist() == [3, 2]
    assert stream["octets"].tolist() == [54 * 3 + 3, 54 * 2 + 4]
    assert stream["client"] == 0
    assert stream["from_start"] == 1


def test_no_mutation_of_tcp_headers_breaks_anything():
    chance = np.random.default_rng(7)
    assembly = Assembly(most_flows=16, most_held=64)
    talk = Conversation().open().client(b"abcdefghij" * 20, 9).server(b"klmnop" * 20, 11).close()
    for _ in range(400):
        frames = [bytearray(f) for f in talk.frames]
        chance.shuffle(frames)
        for frame in frames:
            if chance.random() < 0.3:
                frame[chance.integers(34, 54)] = chance.integers(256)
        assembly.take([bytes(f) for f in frames])
    assembly.end()
    assert assembly.reassembler.directions["held"].sum() == 0
