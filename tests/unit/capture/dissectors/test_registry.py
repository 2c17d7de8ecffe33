"""What holds for every line of the registry, over what was recorded of its protocol."""

import sys
from datetime import datetime
from random import Random

import pytest

from tests.unit.capture.dissectors.feeding import (
    KINDS,
    NAMES,
    dissector_of,
    entries,
    recorded,
)
from tests.unit.capture.dissectors.playback import damaged, in_pieces, with_hole

RECORDED = recorded()
NOT_RECORDED = {"LDAP-udp"}  # Debian's clients do not speak it
KIND = dict(zip(NAMES, KINDS, strict=True))
TCP = [name for name, kind in KIND.items() if kind.transport == "tcp"]
CASES = 100
LENGTHS = (1, 1, 2, 3, 7, 40, 500)
MOST_LATER = {"MYSQL-tcp": 5, "PGSQL-tcp": 6, "REDIS-tcp": 48}
"""Calls that may be lost after the one that misses octets: those of a statement or cursor; where
answers have no numbers, those until it is sure again which answer is whose (48: pipelines)."""
TLS = "TLS-tcp"  # where the client has the last word, after the response
MOST_OTHERWISE = {"REDIS-tcp": 3}


def test_every_protocol_was_recorded():
    assert {name for name, found in RECORDED.items() if not found} == NOT_RECORDED


@pytest.mark.parametrize("name", TCP)
def test_how_octets_are_cut_does_not_matter(name):
    chance = Random(name)
    for stream in RECORDED[name]:
        pieces = [in_pieces(stream.said, lambda: chance.choice(LENGTHS)) for _ in range(3)]
        stories = [stream.said, in_pieces(stream.said, 1), *pieces]
        whole, *others = entries(KIND[name], *stories, batches=3)
        assert whole
        assert all(each == whole for each in others)


def begun_us(entry):
    """When a call began, in microseconds since 1970."""
    return round(datetime.fromisoformat(entry["startTime"][:26] + "+00:00").timestamp() * 1e6)


def brief(entry):
    """What tells a call from others, whatever is known of what it refers to."""
    return tuple(entry[k] for k in ("startTime", "elapsedTimeUs", "requestSize", "responseSize"))


@pytest.mark.parametrize("name", TCP)
def test_lost_octets_cost_what_they_touch(name):
    """What was before is the same; at most a few calls that began later are lost or otherwise."""
    for stream in RECORDED[name]:
        said, holes = stream.said, []
        for where in range(0, len(said), max(1, len(said) // 8)):
            holes.append((where, 0, 1 << 30))
            holes.append((where, len(said[where][1]) // 2, 3))
        stories = [with_hole(said, *hole) for hole in holes]
        whole, *others = entries(KIND[name], said, *stories, batches=2)
        briefs = {brief(each) for each in whole}
        for (where, _, _), found in zip(holes, others, strict=True):
            lost_us = said[where][2] // 1000
            good = {brief(each) for each in found if each["error"] is None}
            calls = [each for each in whole if each["error"] is None]
            paired = [each for each in calls if each["elapsedTimeUs"] is not None]
            before = [e for e in paired if begun_us(e) + e["elapsedTimeUs"] < lost_us]
            assert name == TLS or [each for each in before if each not in found] == []
            later = [e for e in calls if begun_us(e) > lost_us and brief(e) not in good]
            assert len(later) <= MOST_LATER.get(name, 2)
            assert len(good - briefs) <= MOST_OTHERWISE.get(name, 1)


@pytest.mark.parametrize("name", sorted(set(NAMES) - NOT_RECORDED))
def test_damage_ends_a_stream_and_no_more(name):
    """entries() sees to it that nothing but ProtocolError was raised."""
    kind, chance = KIND[name], Random(name)
    stories = [damaged(chance.choice(RECORDED[name]).said, chance) for _ in range(CASES)]
    if kind.transport == "tcp":
        stories = [in_pieces(each, lambda: chance.choice(LENGTHS)) for each in stories]
    entries(kind, *stories, batches=2)
    assert getattr(dissector_of(kind), "buffered", 0) == 0


@pytest.mark.parametrize("name", TCP)
def test_twice_the_octets_are_twice_the_work(name):
    """As few as one in a segment, and whatever the last message promised."""
    kind, chance = KIND[name], Random(name)
    lines = 0

    def count(*_):
        nonlocal lines
        lines += 1
        return count

    def work(said):
        nonlocal lines
        lines, before = 0, sys.gettrace()
        sys.settrace(count)
        try:
            entries(kind, in_pieces(said, 1))
        finally:
            sys.settrace(before)
        return lines

    said = RECORDED[name][0].said
    entries(kind, said)  # what is compiled is no work
    for tail in (bytes(500), b"\xff" * 500, chance.randbytes(500)):
        side, octets, time_ns = said[chance.randrange(len(said))]
        begun = side, octets[: len(octets) // 2], time_ns
        few, many = (work([begun, (side, tail * n, time_ns)]) for n in (1, 4))
        assert many <= 5 * few
