import json
import os

import pytest

from recordings.manifest import AgentMark, Manifest, ManifestError
from recordings.segments import Segment

SEGMENT = Segment("entries", "entries-00000001.parquet", 10, 2000, 1, 2**62, "ab" * 32)
MANIFEST = Manifest(
    job="checkout",
    run=3,
    kfl='request.path == "/é"',
    segments=(SEGMENT,),
    journal=2,
    agents={"agent-1": AgentMark(12, 11)},
    nodes=("node-1", "node-2"),
    counts={"entries": 10, "streams": 0, "packets": 0, "losses": 0},
    lost_packets=4,
)


def test_what_is_saved_is_loaded(tmp_path):
    size = MANIFEST.save(tmp_path)
    assert Manifest.load(tmp_path) == MANIFEST
    assert [(p.name, p.stat().st_size) for p in tmp_path.iterdir()] == [("manifest.json", size)]


def test_a_failed_save_leaves_the_old_one(tmp_path, monkeypatch):
    MANIFEST.save(tmp_path)

    def fail(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space"):
        Manifest("checkout", 3).save(tmp_path)
    assert Manifest.load(tmp_path) == MANIFEST
    assert len(list(tmp_path.iterdir())) == 1


def changed(**fields):
    return {**json.loads(MANIFEST.encode()), **fields}


@pytest.mark.parametrize(
    ("found", "why"),
    [
        ([], "it is not an object"),
        (changed(format=2), "its format is version 2, and only versions up to 1 are known"),
        (changed(schema=99), "its schema is version 99"),
        (changed(job="../x"), "cannot name a recording"),
        (changed(run="1"), "run is not an integer"),
        (changed(journal=-1), "journal is negative"),
        (changed(journal=True), "journal is not an integer"),
        (changed(segments=[1]), "a segment is not an object"),
        (changed(nodes={}), "nodes is not a list"),
        (changed(agents={"a": 1}), "an agent is not an object"),
        (
            changed(segments=[{"table": "entries", "file": "../../a.parquet"}]),
            "'../../a.parquet' cannot be the file of a segment",
        ),
        (
            changed(segments=[{"table": "packets", "file": "entries-00000001.parquet"}]),
            "cannot be the file of a segment of 'packets'",
        ),
        ({"format": 1}, "it has no 'schema'"),
    ],
)
def test_a_damaged_manifest_is_refused_with_a_sentence(tmp_path, found, why):
    (tmp_path / "manifest.json").write_text(json.dumps(found))
    with pytest.raises(ManifestError) as caught:
        Manifest.load(tmp_path)
    assert why in str(caught.value)
    assert str(caught.value).startswith(f"{tmp_path}/manifest.json cannot be used: ")


@pytest.mark.parametrize("octets", [b"", b"{", b"\xff\xfe", b"[" * 100_000, b"null"])
def test_octets_that_are_no_json_are_refused(tmp_path, octets):
    (tmp_path / "manifest.json").write_bytes(octets)
    with pytest.raises(ManifestError, match="cannot be used"):
        Manifest.load(tmp_path)
