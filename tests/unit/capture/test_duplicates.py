"""A node that shows each packet several times: each is taken once, and nothing else is merged."""

import random
import struct
from collections import Counter

import numpy as np
import pytest

from recordings import entry
from services.capture.frames.batch import UNDIRECTED
from services.capture.pipeline import Pipeline, PipelineOptions
from tests.unit.capture import conversation as wire
from tests.unit.capture.conversation import ACK, FIN, MILLISECOND, PSH, START, SYN

MICROSECOND = 1000
GET, OK = b"GET /%s HTTP/1.1\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
POD, OTHER_POD, SERVER, VIP, NODE = "10.1.0.2", "10.1.0.3", "10.1.0.4", "10.9.0.1", "10.1.0.1"
VETHS = {POD: 11, OTHER_POD: 12, SERVER: 13}
BRIDGE, UPLINK = 2, 3
QUERY = bytes.fromhex("12340100000100000000000001610000010001")
ANSWER = bytes.fromhex("12348180000100010000000001610000010001c00c000100010000003c000401020304")


class Wire:
    """Frames with their times and places, as "any" shows them."""

    def __init__(self):
        self.now = START
        self.frames, self.places = [], []
        self.identification = 100

    def next_id(self):
        self.identification += 1
        return self.identification

    def show(self, place, packet, after=5 * MICROSECOND):
        self.now += after
        self.frames.append((self.now, wire.ethernet(packet)))
        self.places.append(place)

    def pause(self, milliseconds=1):
        self.now += milliseconds * MILLISECOND
        return self

    def batch(self, order=None):
        order = range(len(self.frames)) if order is None else order
        places = [self.places[at] for at in order]
        made = wire.batch([self.frames[at] for at in order], interfaces=places)
        self.frames, self.places = [], []
        return made


class Path:
    """What a node does with the packets of one connection.

    It goes from the client's veth (or the uplink) through the bridge to the server's. `called` is
    translated to the server, and the client's address to `seen_as`.
    """

    def __init__(self, on, client=(POD, 40000), called=(VIP, 80), server=(SERVER, 8080),
                 seen_as=None, protocol=6, first=(1000, 9000), keeps_hops=False):  # fmt: skip
        self.on, self.protocol, self.next = on, protocol, list(first)
        self.before, self.after = (client, called), (seen_as or client, server)
        self.keeps_hops, self.uses_id = keeps_hops, True

    def packet(self, side, ends, payload, flags, identification, hops):
        (source, source_port), (target, target_port) = ends if side == 0 else ends[::-1]
        if self.protocol == 17:
            inner = wire.udp(source_port, target_port, payload)
        else:
            inner = wire.tcp(
                source_port, target_port, self.next[side], self.next[side ^ 1], flags, payload
            )
        options = {"identification": identification, "hops": hops}
        return wire.ipv4(source, target, self.protocol, inner, **options)

    def send(self, side, payload=b"", flags=PSH | ACK, again=False):
        """Show a packet on its way; `again` sends the last one once more, with another id."""
        if again:
            self.next[side] -= len(payload)
        identification = self.on.next_id() if self.uses_id else 0
        near, far = (self.before, self.after) if side == 0 else (self.after, self.before)
        hops = 64 if self.keeps_hops else 63
        ins = VETHS.get(near[side][0], UPLINK), BRIDGE
        outs = BRIDGE, VETHS.get(far[side ^ 1][0], UPLINK)
        for place in ins:
            self.on.show(place, self.packet(side, near, payload, flags, identification, 64))
        for place in outs:
            self.on.show(-place, self.packet(side, far, payload, flags, identification, hops))
        self.next[side] += len(payload) + bool(flags & (SYN | FIN))
        return self

    def open(self):
        return self.send(0, flags=SYN).send(1, flags=SYN | ACK).send(0, flags=ACK)

    def call(self, name=b"a"):
        return self.send(0, GET % name).send(1, OK)

    def close(self):
        return self.send(0, flags=FIN | ACK).send(1, flags=FIN | ACK).send(0, flags=ACK)


@pytest.fixture
def pipeline():
    return Pipeline(PipelineOptions(most_flows=64))


@pytest.fixture
def on():
    return Wire()


def taken(pipeline, on, is_end=True, order=None):
    """Entries of all that was shown."""
    parts = pipeline.take(on.batch(order))
    found = [each for part in parts for each in entry.objects(part.entries(np.arange(len(part))))]
    if is_end:
        rest = pipeline.end()
        found += [e for part in rest for e in entry.objects(part.entries(np.arange(len(part))))]
    return found


def ends(call):
    return tuple((call[side]["ip"], call[side]["port"]) for side in ("src", "dst"))


def paths(calls):
    return [(call["request"] or {}).get("path") for call in calls]


def kept(pipeline):
    return int((pipeline.packet_streams != 0).sum())


def view(pipeline):
    """How the one stream of the last batch was called, and seen."""
    (number,) = np.unique(pipeline.packet_streams[pipeline.packet_streams != 0])
    numbers = np.array([number])
    row = pipeline.streams_table(numbers, numbers, numbers > 0)
    names = ("called_ip", "called_port", "seen_ip", "seen_port")
    return tuple(row[name].to_pylist()[0] for name in names)


# Copies ----------------------------------------------------------------------------------------


def test_a_call_between_pods_is_one_call_and_its_packets_are_kept_once(pipeline, on):
    Path(on, called=(SERVER, 80), server=(SERVER, 80)).open().call().close()
    (call,) = taken(pipeline, on)
    assert ends(call) == ((POD, 40000), (SERVER, 80))
    assert kept(pipeline) == 8
    assert pipeline.copies == 3 * 8
    assert view(pipeline) == (None, None, None, None)


def test_copies_are_not_counted_as_packets_of_their_stream(pipeline, on):
    path = Path(on, called=(SERVER, 80), server=(SERVER, 80)).open().send(0, b"\1\2\3")
    path.send(0, b"\1\2\3", again=True).close()
    (stream,) = taken(pipeline, on)
    assert stream["request"]["packets"] == 6  # the one that was sent again is one more
    assert stream["response"]["packets"] == 2
    udp = Path(on, called=(SERVER, 99), server=(SERVER, 99), protocol=17)
    udp.send(0, b"no dns").send(0, b"no dns").send(1, b"neither")
    (stream,) = taken(pipeline, on)
    assert (stream["request"]["packets"], stream["response"]["packets"]) == (2, 1)


def test_a_packet_sent_again_without_an_id_is_not_a_copy(pipeline, on):
    path = Path(on, called=(SERVER, 99), server=(SERVER, 99), protocol=17)
    path.uses_id = False
    path.send(0, b"same").send(0, b"same")
    (stream,) = taken(pipeline, on)
    assert stream["request"]["packets"] == 2


def test_the_same_octets_a_while_later_are_not_a_copy(pipeline, on):
    packet = wire.ipv4(POD, SERVER, 17, wire.udp(1, 99, b"again"))
    on.show(11, packet)
    on.pause(25).show(-13, packet)
    (stream,) = taken(pipeline, on)
    assert stream["request"]["packets"] == 2


def test_frames_of_one_interface_are_all_taken(pipeline, on):
    Path(on, called=(SERVER, 99), server=(SERVER, 99), protocol=17).send(0, b"x")
    on.places = [0] * len(on.places)
    (stream,) = taken(pipeline, on)
    assert stream["request"]["packets"] == 4
    assert pipeline.copies == 0


def test_a_packet_that_a_bridge_floods_is_one(pipeline, on):
    packet = wire.ipv4(POD, "224.0.0.251", 17, wire.udp(5353, 5353, QUERY), identification=7)
    on.show(11, packet)
    for veth in range(20, 60):
        on.show(-veth, packet)
    taken(pipeline, on, is_end=False)
    assert pipeline.copies == 40


def cooked(place, packet, is_version_2):
    kind = 4 if place < 0 else 0
    if is_version_2:
        return struct.pack("!HHIHBB8x", 0x0800, 0, abs(place), 1, kind, 6) + packet
    return struct.pack("!HHH8xH", kind, 1, 6, 0x0800) + packet


@pytest.mark.parametrize(("link_type", "is_version_2"), [(113, False), (276, True)])
def test_in_a_file_of_any_copies_are_found_too(pipeline, on, link_type, is_version_2):
    Path(on, called=(SERVER, 53), server=(SERVER, 53), protocol=17).send(0, QUERY).send(1, ANSWER)
    Path(on, seen_as=(NODE, 33)).open().call().close()
    shown = zip(on.frames, on.places, strict=True)
    frames = [(time, cooked(place, frame[14:], is_version_2)) for (time, frame), place in shown]
    calls = pipeline.take(wire.batch(frames, link_type)) + pipeline.end()
    found = [e for part in calls for e in entry.objects(part.entries(np.arange(len(part))))]
    assert sorted(each["protocol"]["name"] for each in found) == ["dns", "http"]
    assert pipeline.copies == 3 * 10


# Translation -----------------------------------------------------------------------------------

TRANSLATIONS = {
    "to a pod": {},
    "to a pod and from the node": {"seen_as": (NODE, 61234)},
    "from the node": {"called": (SERVER, 80), "server": (SERVER, 80), "seen_as": (NODE, 61234)},
    "by a bridge": {"seen_as": (NODE, 61234), "keeps_hops": True},
    "to itself": {"server": (POD, 8080), "seen_as": (NODE, 61234)},
}


@pytest.mark.parametrize("name", TRANSLATIONS)
@pytest.mark.parametrize("parts", [1, 5])
def test_a_translated_call_is_one_with_the_pods_that_called_and_served(pipeline, on, name, parts):
    options = TRANSLATIONS[name]
    path = Path(on, **options).open()
    calls = [] if parts == 1 else taken(pipeline, on, is_end=False)
    for number in range(3):
        path.call(b"%d" % number)
        calls += [] if parts == 1 else taken(pipeline, on, is_end=False)
    path.close()
    calls += taken(pipeline, on)
    assert paths(calls) == ["/0", "/1", "/2"]
    (client, called), (seen_as, server) = path.before, path.after
    assert {ends(call) for call in calls} == {(client, server)}
    assert {call["stream"] for call in calls} == {calls[0]["stream"]}
    expected = called if called != server else (None, None)
    expected += seen_as if seen_as != client else (None, None)
    assert view(pipeline) == expected
    if parts == 1:
        assert kept(pipeline) == 3 + 2 * 3 + 3


def test_what_is_kept_has_the_addresses_of_the_stream(pipeline, on):
    Path(on, seen_as=(NODE, 61234)).open().call().close()
    made = on.batch()
    pipeline.take(made)
    frames = made.frames[pipeline.packet_streams != 0]
    addresses = {
        frozenset((made.octets[o + 26 :][:4].tobytes(), made.octets[o + 30 :][:4].tobytes()))
        for o in frames["offset"]
    }
    assert addresses == {frozenset((bytes([10, 1, 0, 2]), bytes([10, 9, 0, 1])))}
    assert len(frames) == 8


def test_a_question_to_a_service_is_one_call(pipeline, on):
    for uses_id in (True, False):
        port = 40000 + uses_id
        path = Path(on, (POD, port), (VIP, 53), (SERVER, 5353), (NODE, port + 9), protocol=17)
        path.uses_id = uses_id
        path.send(0, QUERY).send(1, ANSWER)
    calls = taken(pipeline, on)
    assert [each["protocol"]["name"] for each in calls] == ["dns", "dns"]
    assert all(call["response"]["answers"][0]["ip"] == "1.2.3.4" for call in calls)
    assert {ends(call) for call in calls} == {
        ((POD, port), (SERVER, 5353)) for port in (40000, 40001)
    }


@pytest.mark.parametrize("begins", [0, 1])
def test_a_connection_from_before_is_one_from_its_first_packet(pipeline, on, begins):
    path = Path(on, seen_as=(NODE, 61234))
    if begins == 1:
        path.send(1, OK)
    path.call(b"x").call(b"y")
    calls = taken(pipeline, on)
    assert [path for path in paths(calls) if path] == ["/x", "/y"]
    assert {ends(call) for call in calls} == {((POD, 40000), (SERVER, 8080))}
    assert view(pipeline) == (VIP, 80, NODE, 61234)


def test_options_that_are_changed_on_the_way_do_not_matter_from_the_first_data_on(pipeline, on):
    """A smaller segment size is put into SYNs, so these do not look the same."""
    path = Path(on, seen_as=(NODE, 61234))
    for side, flags in ((0, SYN), (1, SYN | ACK)):
        path.send(side, flags=flags)
        for at in (-1, -2):
            time, frame = on.frames[at]
            on.frames[at] = (time, frame[:-6] + b"\x10\x00" + frame[-4:])  # its window will do
    taken(pipeline, on, is_end=False)
    path.send(0, flags=ACK).call().close()
    calls = taken(pipeline, on)
    assert paths(calls) == ["/a"]
    assert ends(calls[0]) == ((POD, 40000), (SERVER, 8080))


def test_an_answer_finds_its_stream_when_the_translation_was_forgotten(pipeline, on):
    path = Path(on, seen_as=(NODE, 61234)).open().call(b"1").send(0, GET % b"2")
    calls = taken(pipeline, on, is_end=False)
    for row in pipeline.flows.rows:
        row.root = 0  # as if the other flow had made room
    path.send(1, OK).call(b"3")
    calls += taken(pipeline, on)
    assert paths(calls) == ["/1", "/2", "/3"]
    assert len({call["stream"] for call in calls}) == 1


def test_a_translated_five_tuple_that_is_used_again_is_the_next_ones(pipeline, on):
    first = Path(on, seen_as=(NODE, 61234)).open().call(b"1").close()
    second = Path(on.pause(), (OTHER_POD, 50000), seen_as=(NODE, 61234), first=(8**9, 7**9))
    second.open().call(b"2").close()
    third = Path(on.pause(), (POD, 40000), seen_as=(NODE, 61234), first=(8**8, 7**8))
    third.open().call(b"3").close()
    calls = taken(pipeline, on)
    assert paths(calls) == ["/1", "/2", "/3"]
    assert [ends(call)[0] for call in calls] == [p.before[0] for p in (first, second, third)]


def test_when_a_translated_connection_has_ended_its_addresses_are_free(pipeline, on):
    Path(on, seen_as=(NODE, 61234)).open().call().close()
    taken(pipeline, on, is_end=False)
    Path(on.pause(20_000), (OTHER_POD, 5), (SERVER, 80), (SERVER, 80)).open()  # lets time pass
    taken(pipeline, on, is_end=False)
    other = Path(on.pause(), (NODE, 61234), (SERVER, 8080), (SERVER, 8080), first=(7, 8))
    other.send(1, b"\1\2\3").send(0, b"\4")
    ended = [ends(each) for each in taken(pipeline, on) if each["protocol"]["name"] == "tcp"]
    assert ((NODE, 61234), (SERVER, 8080)) in ended


def test_what_the_capture_lost_of_one_address_it_has_from_the_other(pipeline, on):
    chance = random.Random(3)
    path = Path(on, seen_as=(NODE, 61234)).open()
    for number in range(30):
        before = len(on.frames)
        path.call(b"%d" % number)
        for packet in (before + 4, before):  # of each packet, up to three of four copies
            for at in sorted(chance.sample(range(packet, packet + 4), 2), reverse=True):
                del on.frames[at], on.places[at]
    calls = taken(pipeline, on)
    assert paths(calls) == [f"/{number}" for number in range(30)]


def answer_to_the_node(on, protocol, identification, payload):
    """A process of the node calls a service on the same node, behind a bridge that translates.

    The question leaves with the pod's address; the answer comes from the pod, and into the bridge
    from the service.
    """
    build = wire.udp if protocol == 17 else wire.tcp
    there = [] if protocol == 17 else [1001, 9001, PSH | ACK]
    back = [] if protocol == 17 else [9001, 1001 + len(payload[0]), PSH | ACK]
    options = {"identification": identification}
    asked = wire.ipv4(NODE, SERVER, protocol, build(40777, 5300, *there, payload[0]), **options)
    on.show(-BRIDGE, asked)
    on.show(-VETHS[SERVER], asked)
    answer = build(5300, 40777, *back, payload[1])
    on.show(VETHS[SERVER], wire.ipv4(SERVER, NODE, protocol, answer, **options))
    answer = build(53, 40777, *back, payload[1])
    on.show(BRIDGE, wire.ipv4(VIP, NODE, protocol, answer, **options))


def test_an_answer_that_a_bridge_translates_for_the_node_is_no_second_one(pipeline, on):
    answer_to_the_node(on, 17, 0, (QUERY, ANSWER))
    (call,) = taken(pipeline, on)
    assert ends(call) == ((NODE, 40777), (SERVER, 5300))
    answer_to_the_node(on, 6, 5, (GET % b"x", OK))
    (call,) = taken(pipeline, on)
    assert ends(call) == ((NODE, 40777), (SERVER, 5300))
    assert view(pipeline) == (VIP, 53, None, None)


# What must stay apart --------------------------------------------------------------------------


def test_the_same_datagram_of_two_pods_is_two(pipeline, on):
    shown = []
    for pod, port in ((POD, 1111), (OTHER_POD, 2222)):
        path = Path(on, (pod, port), (SERVER, 9125), (SERVER, 9125), protocol=17)
        path.uses_id = False
        path.send(0, b"requests:1|c")
        shown.append(list(range(len(on.frames) - 4, len(on.frames))))
    # One behind the other, or in each other's midst.
    order = [at for pair in zip(*shown, strict=True) for at in pair]
    on.frames = [(START + n, on.frames[at][1]) for n, at in enumerate(order)]
    on.places = [on.places[at] for at in order]
    streams = taken(pipeline, on)
    assert Counter(stream["request"]["packets"] for stream in streams) == {1: 2}


def test_the_same_datagram_of_two_pods_to_the_node_is_two(pipeline, on):
    for source in (POD, OTHER_POD):
        datagram = wire.ipv4(source, NODE, 17, wire.udp(1111, 9125, b"x:1|c"), identification=0)
        on.show(VETHS[source], datagram)
        on.show(BRIDGE, datagram)
    assert {ends(stream)[0] for stream in taken(pipeline, on)} == {(POD, 1111), (OTHER_POD, 1111)}


def test_the_same_datagram_of_two_pods_to_a_service_stays_two(pipeline, on):
    """Which of them left, nobody can tell when they overtake each other."""
    paths = [
        Path(on, (pod, 1111), (VIP, 9125), (SERVER, 9125), protocol=17) for pod in (POD, OTHER_POD)
    ]
    for path in paths:
        path.uses_id = False
        path.send(0, b"requests:1|c")
    order = [0, 4, 1, 5, 2, 6, 3, 7]
    on.frames = [(START + n, on.frames[at][1]) for n, at in enumerate(order)]
    on.places = [on.places[at] for at in order]
    sources = {ends(stream)[0] for stream in taken(pipeline, on)}
    assert {(POD, 1111), (OTHER_POD, 1111)} <= sources


def test_connections_with_the_same_numbers_stay_apart(pipeline, on):
    """As those of scanners, and of tests."""
    for port in range(1, 6):
        Path(on, (POD, port), (SERVER, 80), (SERVER, 80)).open().call(b"%d" % port).close()
    calls = taken(pipeline, on)
    assert sorted(paths(calls)) == ["/1", "/2", "/3", "/4", "/5"]
    assert len({call["stream"] for call in calls}) == 5


def test_without_directions_nothing_is_taken_for_a_translation(pipeline, on):
    """As from interfaces with a ring each, which are not in the order of time."""
    Path(on, seen_as=(NODE, 61234)).open().call().close()
    on.places = [abs(place) | UNDIRECTED for place in on.places]
    calls = taken(pipeline, on)
    assert sorted(ends(call)[0] for call in calls) == [(NODE, 61234), (POD, 40000)]


# Many ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(10))
def test_of_many_connections_at_once_each_call_is_one(seed):
    chance = random.Random(seed)
    pipeline, on = Pipeline(PipelineOptions(most_flows=1024)), Wire()
    expected, talks, calls = Counter(), [], []
    for number in range(60):
        name = chance.choice(list(TRANSLATIONS))
        options = dict(TRANSLATIONS[name], client=(POD, 10_000 + number))
        if "seen_as" in options:
            options["seen_as"] = (NODE, 30_000 + number)
        options["first"] = (chance.randrange(2**32), chance.randrange(2**32))
        steps = ["open", *["call"] * chance.randrange(4), "close"]
        talks.append((number, Path(on, **options), steps))
    while talks:
        number, path, steps = talk = chance.choice(talks)
        step = steps.pop(0)
        if step == "call":
            name = f"{number}-{len(steps)}"
            expected[f"/{name}"] += 1
            path.call(name.encode())
        else:
            getattr(path, step)()
        if not steps:
            talks.remove(talk)
        if chance.random() < 0.1:
            calls += taken(pipeline, on, is_end=False)
    calls += taken(pipeline, on)
    calls = [call for call in calls if call["protocol"]["name"] == "http"]
    assert Counter(paths(calls)) == expected
    assert {ends(call)[1] for call in calls} <= {(SERVER, 8080), (SERVER, 80), (POD, 8080)}


def test_no_mutation_breaks_anything(pipeline):
    chance = np.random.default_rng(5)
    for _ in range(100):
        on = Wire()
        for port in range(4):
            Path(on, (POD, 100 + port), seen_as=(NODE, 200 + port)).open().call().close()
        frames = []
        for time, frame in on.frames:
            frame = bytearray(frame)
            while chance.random() < 0.3:
                frame[chance.integers(len(frame))] = chance.integers(256)
            frames.append((time, bytes(frame[: chance.integers(30, len(frame) + 1)])))
        places = chance.choice([0, 1, 2, -1, -2, 3 | UNDIRECTED], len(frames))
        order = chance.permutation(len(frames))
        pipeline.take(wire.batch([frames[at] for at in order], interfaces=places))
    pipeline.end()
