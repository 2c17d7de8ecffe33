"""Real clients of a real server: entries say what both of them saw."""

import json
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import yaml

from recordings import entry
from services.capture import frames
from services.capture.dissectors.registry import PROTOCOLS
from services.capture.pipeline import Pipeline, PipelineOptions

GOLDEN = Path(__file__).parents[4] / "golden/captures"
TYPES = {
    "+": "Simple String", "-": "Error", ":": "Integer", "$": "Bulk String", "*": "Array",
    "%": "Map", "~": "Set", ">": "Push", ",": "Double", "_": "Null", "#": "Boolean",
    "=": "Verbatim String", "(": "Big Number",
}  # fmt: skip
REDIS = [each for each in PROTOCOLS if each.name == "redis"]


def entries_of(name, skipped=0):
    pipeline = Pipeline(PipelineOptions(most_flows=64), REDIS)
    calls = []
    for octets, rows, passed in frames.open_capture(str(GOLDEN / name)).batches():
        batch = frames.FrameBatch(octets, rows[skipped:], passed)
        for part in pipeline.take(batch):
            calls += entry.objects(part.entries(np.arange(len(part))))
    for part in pipeline.end():
        calls += entry.objects(part.entries(np.arange(len(part))))
    assert pipeline.losses() == []
    return calls


def said(name):
    return yaml.safe_load((GOLDEN / name).with_suffix(".yaml").read_text())


def value_of(got):
    """The value that a line says, where it is one."""
    kind, line = got[0], got[1:].split("\r\n")[0]
    if kind == "$" and line != "-1":
        return got.split("\r\n", 1)[1][: int(line)]
    return {"+": line, "-": line, ":": int(line) if kind == ":" else None}.get(kind)


@pytest.mark.parametrize("name", ["redis-session.pcap", "redis-resp3.pcap", "redis-pubsub.pcap"])
def test_commands_and_replies_are_those_that_the_client_logged(name):
    known = said(name)
    found = entries_of(name)
    assert {(e["protocol"]["name"], e["protocol"]["abbr"]) for e in found} == {("redis", "REDIS")}
    assert {e["dst"]["port"] for e in found} == {16399}
    asked = [e for e in found if e["request"] is not None]
    assert len(asked) == len(known["calls"])
    # Of several connections, they are in the order of the replies.
    for each, call in zip(asked, known["calls"], strict=True):
        words, got = call["asked"].split(), call["got"]
        assert each["request"]["command"] == words[0].upper()
        assert each["error"] is None
        if got is None:
            assert each["response"] is None
            continue
        if got[0] in "|>" and "reply following" in got:
            got = "$" + got.rsplit("$", 1)[1]
        assert each["response"]["type"] == TYPES[got[0]]
        if value_of(got) is not None and each["response"]["value"] != "[redacted]":
            assert str(each["response"]["value"])[:40] == str(value_of(got))[:40]
    shown = json.dumps(found)
    assert [secret for secret in known["secrets"] if secret in shown] == []


@pytest.mark.parametrize("name", ["redis-resp3.pcap", "redis-pubsub.pcap"])
def test_what_a_server_pushes_is_an_entry_of_its_own(name):
    pushed = [e for e in entries_of(name) if e["request"] is None]
    assert [e["error"] for e in pushed] == [None] * len(pushed)
    assert {(e["src"]["port"] > 30000, e["dst"]["port"]) for e in pushed} == {(True, 16399)}
    shown = []
    for each in pushed:
        words = [each["response"].get(key) for key in ("command", "keyword", "key", "value")]
        text = " ".join(str(word) for word in words if word is not None)
        shown.append(re.sub(r"[\[\]',\\]", "", text))
    expected = said(name)["pushed"]
    assert len(shown) == len(expected)
    assert [each for each in expected if not any(each in text for text in shown)] == []


def test_pipelines_have_as_many_calls_as_the_server_counted():
    found = entries_of("redis-pipelines.pcap")
    counts = Counter(e["request"]["command"] for e in found)
    assert counts == said("redis-pipelines.pcap")["counts"]
    assert {e["error"] for e in found} == {None}
    keys = [e for e in found if e["request"]["command"] == "LPUSH"]
    lengths = sorted(e["response"]["value"] for e in keys)
    assert lengths == list(range(lengths[0], lengths[0] + len(keys)))


@pytest.mark.parametrize("skipped", range(4, 30, 3))
def test_a_capture_that_begins_in_the_middle_pairs_nothing_wrong(skipped):
    whole = entries_of("redis-session.pcap")
    known = {(e["startTime"], json.dumps(e["request"])): e["response"] for e in whole}
    cut = entries_of("redis-session.pcap", skipped)
    for each in cut:
        if each["request"] and each["response"] and each["protocol"]["name"] == "redis":
            assert known[each["startTime"], json.dumps(each["request"])] == each["response"]
    assert len([e for e in cut if e["error"] is None]) > len(whole) - 12
