"""Names of numbers."""

import pytest

from services.capture.dissectors.dns import codes


@pytest.mark.parametrize(
    "table", [codes.TYPES, codes.CLASSES, codes.OPCODES, codes.RCODES, codes.SERVICE_KEYS]
)
def test_names_are_given_once_and_need_no_escape_in_json(table):
    assert len(set(table.values())) == len(table)
    assert all(name.replace("-", "").isalnum() and name.isascii() for name in table.values())


def test_names_agree_with_scapy():
    from scapy.layers.dns import dnstypes

    differ = {
        (codes.TYPES[number], name)
        for number, name in dnstypes.items()
        if number in codes.TYPES and codes.TYPES[number] != name
    }
    # scapy says ALL for what RFC 1035 calls `*` and everybody ANY.
    assert differ <= {("ANY", "ALL"), ("EID", "NB"), ("NIMLOC", "NBSTAT")}


def test_a_type_without_a_name():
    assert codes.type_name(28) == "AAAA"
    assert codes.type_name(65280) == "TYPE65280"
