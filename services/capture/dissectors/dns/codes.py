"""The names of DNS numbers: types, classes, opcodes and response codes, as dicts for people and as
tables for the kernels (IANA, "Domain Name System (DNS) Parameters"; RFC 6895).

A number that has no name here is written as RFC 3597 section 5 does: TYPE65280, CLASS32.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

# fmt: off
TYPES: dict[int, str] = {
    1: "A", 2: "NS", 3: "MD", 4: "MF", 5: "CNAME", 6: "SOA", 7: "MB", 8: "MG", 9: "MR", 10: "NULL",
    11: "WKS", 12: "PTR", 13: "HINFO", 14: "MINFO", 15: "MX", 16: "TXT", 17: "RP", 18: "AFSDB",
    19: "X25", 20: "ISDN", 21: "RT", 22: "NSAP", 23: "NSAP-PTR", 24: "SIG", 25: "KEY", 26: "PX",
    27: "GPOS", 28: "AAAA", 29: "LOC", 30: "NXT", 31: "EID", 32: "NIMLOC", 33: "SRV", 34: "ATMA",
    35: "NAPTR", 36: "KX", 37: "CERT", 38: "A6", 39: "DNAME", 40: "SINK", 41: "OPT", 42: "APL",
    43: "DS", 44: "SSHFP", 45: "IPSECKEY", 46: "RRSIG", 47: "NSEC", 48: "DNSKEY", 49: "DHCID",
    50: "NSEC3", 51: "NSEC3PARAM", 52: "TLSA", 53: "SMIMEA", 55: "HIP", 56: "NINFO", 57: "RKEY",
    58: "TALINK", 59: "CDS", 60: "CDNSKEY", 61: "OPENPGPKEY", 62: "CSYNC", 63: "ZONEMD",
    64: "SVCB", 65: "HTTPS", 66: "DSYNC", 67: "HHIT", 68: "BRID",
    99: "SPF", 100: "UINFO", 101: "UID", 102: "GID", 103: "UNSPEC", 104: "NID", 105: "L32",
    106: "L64", 107: "LP", 108: "EUI48", 109: "EUI64", 128: "NXNAME",
    249: "TKEY", 250: "TSIG", 251: "IXFR", 252: "AXFR", 253: "MAILB", 254: "MAILA", 255: "ANY",
    256: "URI", 257: "CAA", 258: "AVC", 259: "DOA", 260: "AMTRELAY", 261: "RESINFO",
    262: "WALLET", 263: "CLA", 264: "IPN", 32768: "TA", 32769: "DLV",
}

CLASSES: dict[int, str] = {1: "IN", 3: "CH", 4: "HS", 254: "NONE", 255: "ANY"}

OPCODES: dict[int, str] = {
    0: "QUERY", 1: "IQUERY", 2: "STATUS", 4: "NOTIFY", 5: "UPDATE", 6: "DSO",
}

RCODES: dict[int, str] = {
    0: "NOERROR", 1: "FORMERR", 2: "SERVFAIL", 3: "NXDOMAIN", 4: "NOTIMP", 5: "REFUSED",
    6: "YXDOMAIN", 7: "YXRRSET", 8: "NXRRSET", 9: "NOTAUTH", 10: "NOTZONE", 11: "DSOTYPENI",
    # Above 15 only with EDNS, which holds the upper eight bits (RFC 6891, section 6.1.3).
    16: "BADVERS", 17: "BADKEY", 18: "BADTIME", 19: "BADMODE", 20: "BADNAME", 21: "BADALG",
    22: "BADTRUNC", 23: "BADCOOKIE",
}

SERVICE_KEYS: dict[int, str] = {
    0: "mandatory", 1: "alpn", 2: "no-default-alpn", 3: "port", 4: "ipv4hint", 5: "ech",
    6: "ipv6hint", 7: "dohpath", 8: "ohttp", 9: "tls-supported-groups", 10: "docpath",
}
"""Keys of the parameters of SVCB and HTTPS (RFC 9460, section 14.3)."""
# fmt: on

NUMBER_OF_TYPE = {name: number for number, name in TYPES.items()}


class Words(NamedTuple):
    """Names by number, for a kernel: name n is octets[starts[n]:starts[n + 1]]; "" is no name."""

    octets: np.ndarray
    """uint8"""
    starts: np.ndarray
    """int64"""
    prefix: int
    """Row of what stands before a number that has no name."""


def words(names: Mapping[int, str], prefix: str) -> Words:
    """Return a dense table of `names`, with `prefix` ("TYPE") in its last row."""
    rows = [names.get(number, "") for number in range(max(names) + 1)] + [prefix]
    starts = np.zeros(len(rows) + 1, np.int64)
    np.cumsum([len(name) for name in rows], out=starts[1:])
    octets = np.frombuffer("".join(rows).encode("ascii"), np.uint8)
    return Words(octets, starts, len(rows) - 1)


def type_name(number: int) -> str:
    """Return the name of a record type, `TYPE65280` when it has none."""
    return TYPES.get(number, f"TYPE{number}")
