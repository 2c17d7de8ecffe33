"""The coarse form of a filter keeps all packets, and dissectors, of entries that match."""

import json
import random

import hypothesis.strategies as st
import pyarrow as pa
from hypothesis import example, given, settings

import kfl
from kfl import coarse
from kfl.packets import NAMELESS, Packets
from recordings import entry as entry_json
from recordings.schema import ENTRIES
from tests.unit.kfl.onepacket import Packet, accepts

ADDRESSES = ["10.0.0.1", "10.0.1.2", "fd00::1"]
WRITTEN = [*ADDRESSES, "::0001", "10.0.0", "010.0.0.1", "a", "", "80", "10.0.", "10.", "fd00:"]
PORTS = [0, 53, 80, 1025, 65535]
NUMBERS = [*map(str, PORTS), *map(str, PORTS), "-1", "80.0", "80.5", "1e3", "70000", "1e400"]
NAMES = ["a", "b", "", "checkout", "80"]

texts = st.sampled_from(WRITTEN + NAMES + NUMBERS).map(json.dumps)
numbers = st.sampled_from(NUMBERS)
scalars = st.one_of(texts, numbers, st.sampled_from(["nil", "true", "false"]))
patterns = st.sampled_from(['r"^10"', 'r"0"', 'r"^$"', 'r"a"'])
lists = st.lists(st.one_of(scalars, patterns, st.just('["a"]')), max_size=3).map(
    lambda items: f"[{', '.join(items)}]"
)
operators = st.sampled_from(["==", "==", "!=", "<", "<=", ">", ">="])
sides = st.sampled_from(["src", "dst"])
keys = st.sampled_from(
    [
        *("ip", "ip", "port", "port", "name", "namespace", "pod", "pod.namespace", "service"),
        *("dns", "labels", "labels.app", 'labels["x~y"]', "*"),
    ]
)
peers = st.tuples(sides, keys).map(".".join)
others = st.sampled_from(
    [
        *("transport", "protocol.name", "protocol.abbr", "proto.version", "tls", "request.method"),
        *("response.status", "method", "status_code", "dns_questions", "redis_key", "pods"),
        *("namespaces", "services", "dns_resolutions", "local_labels", "record", "requestSize"),
        *("flow_local_pkts", "request.body.json().a"),
    ]
)
protocols = list(coarse.CARRIED)
names = st.one_of(st.sampled_from([*protocols, "tcp", "udp", "icmp", "gone"]).map(json.dumps))
values = st.one_of(peers, peers, others)


def form(pattern, *parts):
    return st.tuples(*parts).map(lambda found: pattern.format(*found))


sharp = st.one_of(
    st.sampled_from(sorted(kfl.words.WORDS)),
    form("{}.port {} {}", sides, operators, numbers),
    form("{}.port {} {}", sides, operators, numbers.map(json.dumps)),
    form("{}.ip {} {}", sides, operators, st.sampled_from(WRITTEN).map(json.dumps)),
    form("{}.ip.startsWith({})", sides, st.sampled_from(WRITTEN).map(json.dumps)),
    form("{}.{} in {}", sides, st.sampled_from(["ip", "port"]), lists),
    form("{}.{} {} {}", sides, st.sampled_from(["name", "pod", "labels.app"]), operators, texts),
    form("{} in pods", st.sampled_from(NAMES).map(json.dumps)),
)

blunt = st.one_of(
    st.sampled_from([*kfl.words.WORDS, "limit(2)", 'record("a")', 'redact("request.body")']),
    values,
    form("{} {} {}", values, operators, scalars),
    form("{} {} {}", scalars, operators, values),
    form("{} {} {}", st.sampled_from(["transport", "protocol.name"]), operators, names),
    form("{} == {}", values, patterns),
    form("{} {} {}", values, st.sampled_from(["==", "!=", "in"]), lists),
    form("{} in {}", texts, st.one_of(values, st.sampled_from(["pods", "namespaces"]))),
    form("{}.{}({})", values, st.sampled_from(["startsWith", "endsWith", "contains"]), texts),
    form("{}.matches({})", values, st.sampled_from(['"^a"', '""'])),
    form("{} {} {}", values, operators, values),
    form("({} + {}) > {}", values, values, numbers),
    form("size({}) > {}", values, numbers),
    form('map_get({}, "app", {}) == {}', values, values, texts),
)

filters = st.recursive(
    st.one_of(sharp, sharp, sharp, blunt),
    lambda inner: st.one_of(
        form("({} and {})", inner, inner),
        form("({} or {})", inner, inner),
        form("not ({})", inner),
        form("({} ? {} : {})", inner, inner, inner),
    ),
    max_leaves=6,
)


def rows():
    """Entries of each protocol over each of its transports, otherwise as chance has it."""
    chance = random.Random(1)  # the same at each run
    for protocol, tree in coarse.CARRIED.items():
        for transport in sorted(coarse.TRANSPORTS):
            for _ in range(16):
                ports = [chance.choice(PORTS), chance.choice(PORTS)]
                addresses = (chance.choice(ADDRESSES), chance.choice(ADDRESSES))
                if accepts(tree, Packet(transport, addresses, tuple(ports))):
                    yield row(chance, protocol, transport, addresses, ports)


def row(chance, protocol, transport, addresses, ports):
    found = {
        "protocol_name": protocol,
        "protocol_version": chance.choice(["1.1", "2", ""]),
        "protocol_abbr": chance.choice(["HTTP", "gRPC", "GQL", ""]),
        "transport": transport,
        "tls": chance.random() < 0.3 and transport in ("tcp", "udp"),
        "start_time": 1,
        "request": chance.choice([None, '{"method": "GET", "packets": 1}']),
        "response": chance.choice([None, '{"status": 80}']),
        "record": chance.choice([None, "a"]),
    }
    for side, port, address in zip(("src", "dst"), ports, addresses, strict=True):
        found[f"{side}_ip"] = address
        found[f"{side}_port"] = chance.choice([None, 0]) if transport == "icmp" else port
        if chance.random() < 0.3:
            continue  # nothing is known of this one
        for key in ("name", "namespace", "pod", "service", "dns"):
            found[f"{side}_{key}"] = chance.choice([None, *NAMES])
        found[f"{side}_labels"] = chance.choice([None, '{"app":"a","x~y":"b"}', "{}"])
    return found


SCHEMA = ENTRIES.append(pa.field("record", pa.string()))


def entries_of(found):
    whole = [{name: row.get(name) for name in SCHEMA.names} for row in found]
    return entry_json.objects(pa.Table.from_pylist(whole, schema=SCHEMA))


def packet_of(entry):
    src, dst = entry["src"], entry["dst"]
    ports = None if entry["transport"] == "icmp" else (src["port"], dst["port"])
    return Packet(entry["transport"], (src["ip"], dst["ip"]), ports, (src, dst))


ENTRIES_OF_ALL = entries_of(rows())


def is_named(peer):
    """Whether capture could list this peer: more is known of it than its address."""
    return {**peer, "ip": "", "port": 0} != {**NAMELESS, "ip": "", "port": 0}


def compiled(text):
    try:
        return kfl.compile(text)
    except kfl.KflError:
        return None


@settings(max_examples=400, deadline=None)
@given(st.one_of(sharp, filters))
@example("icmp and src.port < 80")
@example('src.name == "" and tcp')
def test_no_packet_and_no_dissector_of_a_match_is_left_out(text):
    chosen = compiled(text)
    if chosen is None:
        return
    needed = chosen.packets()
    joined = Packets.union([kfl.compile("false").packets(), needed])
    for entry in filter(chosen.matches, ENTRIES_OF_ALL):
        there = packet_of(entry)
        back = packet_of({**entry, "src": entry["dst"], "dst": entry["src"]})
        known = [peer for peer in there.peers if is_named(peer)]

        def addresses(test, known=known):
            return [peer["ip"] for peer in known if test.test()(peer)]

        for packets in (needed, joined, needed.resolved(addresses)):
            assert accepts(packets.tree, there), entry
            assert accepts(packets.tree, back), entry
            assert packets.dissectors is None or entry["protocol"]["name"] in packets.dissectors


@given(st.sampled_from(sorted(kfl.words.WORDS)), filters)
@settings(max_examples=100, deadline=None)
def test_the_union_keeps_what_each_keeps(word, text):
    both = [found.packets() for found in map(compiled, (word, text)) if found is not None]
    joined = Packets.union(both)
    for entry in ENTRIES_OF_ALL:
        packet = packet_of(entry)
        each = [accepts(packets.tree, packet) for packets in both]
        assert accepts(joined.tree, packet) == any(each)


def flat(node):
    parts = node.parts if isinstance(node, coarse.AllOf | coarse.AnyOf) else ()
    return [node, *(each for part in parts for each in flat(part))]


@settings(max_examples=150, deadline=None)
@given(filters)
@example("tcp and (dns or (udp and src.port == 80)) and (src.port == 80 or http)")
def test_trees_are_simple(text):
    chosen = compiled(text)
    if chosen is None:
        return
    tree = chosen.packets().tree
    for node in flat(tree):
        if isinstance(node, coarse.AllOf | coarse.AnyOf):
            assert len(node.parts) > 1
            assert len(set(node.parts)) == len(node.parts)
            assert not any(isinstance(part, type(node)) for part in node.parts)
            assert coarse.EVERYTHING not in node.parts
            assert coarse.NOTHING not in node.parts
