"""Captures of real clients and servers give the calls that those have logged.

Each has a .yaml: how it was recorded, what the calls of the protocol are that it is named after (of
an entry's request and response the keys that are known), and texts that must not be in any entry.
"""

import json
from pathlib import Path

import pytest
import yaml

from recordings.entry import objects
from services.capture import dissect

CAPTURES = Path(__file__).parent / "captures"
NAMES = (
    "diameter-peers", "diameter-sctp", "icmp-ping", "ldap-slapd", "radius-freeradius",
    "sctp-association",
)  # fmt: skip


def part_of(entry, wanted):
    """What is wanted, with the values that an entry has."""
    if not isinstance(wanted, dict):
        return entry
    if not isinstance(entry, dict):
        return entry
    return {key: part_of(entry.get(key), each) for key, each in wanted.items()}


@pytest.mark.parametrize("name", NAMES)
def test_entries_are_what_client_and_server_logged(name):
    wanted = yaml.safe_load((CAPTURES / f"{name}.yaml").read_text())
    capture = wanted.get("capture", f"{name}.pcap")
    found = [
        entry
        for table in dissect.tables(CAPTURES / capture, None, 1 << 16)
        for entry in objects(table)
        if entry["protocol"]["name"] == name.partition("-")[0]
    ]
    found.sort(key=lambda entry: entry["startTime"])
    parts = [part_of(entry, call) for entry, call in zip(found, wanted["calls"], strict=False)]
    assert parts == wanted["calls"]
    assert len(found) == len(wanted["calls"])
    text = json.dumps(found)
    assert not [secret for secret in wanted["secrets"] if secret in text]
