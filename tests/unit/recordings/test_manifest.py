import hashlib
import json
import os
from dataclasses import replace

import pytest

from recordings.manifest import AgentMark, Manifest, ManifestError, Retired
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
    retired=(Retired("entries-00000002.parquet", 20, 1),),
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
    """A manifest of the first format, which had no checksum and nothing that was retired."""
    found = {**json.loads(MANIFEST.encode()), "format": 1}
    del found["sha256"]
    return {**found, **fields}


def test_a_manifest_of_the_first_format_is_loaded(tmp_path):
    (tmp_path / "manifest.json").write_text(json.dumps(changed(retired=[])))
    assert Manifest.load(tmp_path) == replace(MANIFEST, retired=())


def test_no_octet_of_a_manifest_can_change_unseen(tmp_path):
    octets = MANIFEST.encode()
    for place in range(len(octets)):
        for bit in (1, 0x20):
            damaged = bytearray(octets)
            damaged[place] ^= bit
            with pytest.raises(ManifestError):
                Manifest.parse(bytes(damaged), tmp_path)


def test_the_checksum_can_be_computed_without_this_program():
    octets = MANIFEST.encode()
    digest = json.loads(octets)["sha256"].encode()
    assert hashlib.sha256(octets.replace(digest, b"0" * 64)).hexdigest().encode() == digest


@pytest.mark.parametrize(
    ("found", "why"),
    [
        ([], "it is not an object"),
        (changed(format=4), "its format is version 4, and only versions up to 3 are known"),
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
        ({"format": 2, "schema": 1}, "it has no 'sha256'"),
        (changed(sha256="1" * 64), "it was damaged, or changed by hand"),
        (changed(retired=[{"file": "../a"}]), "'../a' cannot be the file of a segment"),
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
