"""Fingerprints of hellos: which software says them.

JA3 and JA3S: https://github.com/salesforce/ja3 (BSD-3-Clause). JA4:
https://github.com/FoxIO-LLC/ja4/blob/main/technical_details/JA4.md (BSD-3-Clause; the other
methods of that project have a licence of their own and are not here). Both leave GREASE out.
"""

import hashlib
from collections.abc import Iterable

from services.capture.dissectors.tls.names import GREASE

SNI, ALPN = 0, 16  # extensions that JA4 counts, and leaves out of its list
MOST_SHOWN = 99  # JA4 has two digits for a count
SHORT_HASH = 12  # digits of a hash in JA4
NOTHING = "0" * SHORT_HASH
JA4_VERSIONS = {
    0x0304: "13",
    0x0303: "12",
    0x0302: "11",
    0x0301: "10",
    0x0300: "s3",
    0x0002: "s2",
}


def _listed(numbers: Iterable[int]) -> str:
    return "-".join(str(number) for number in numbers if number not in GREASE)


def _md5(text: str) -> str:
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


def ja3(
    version: int,
    suites: Iterable[int],
    extensions: Iterable[int],
    groups: Iterable[int],
    formats: Iterable[int],
) -> str:
    """Return the JA3 of a ClientHello; `version` is that of its head."""
    lists = (_listed(each) for each in (suites, extensions, groups, formats))
    return _md5(",".join((str(version), *lists)))


def ja3s(version: int, suite: int, extensions: Iterable[int]) -> str:
    """Return the JA3S of a ServerHello; `version` is that of its head."""
    return _md5(f"{version},{suite},{_listed(extensions)}")


def _short_hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:SHORT_HASH] if text else NOTHING


def _hexadecimal(numbers: Iterable[int]) -> str:
    return ",".join(f"{number:04x}" for number in numbers)


def _ends(alpn: bytes) -> str:
    """Return the first and the last character of a protocol's name."""
    if not alpn:
        return "00"
    first, last = alpn[:1], alpn[-1:]
    if (first + last).isalnum():  # of octets: ASCII only
        return (first + last).decode("ascii")
    return first.hex()[0] + last.hex()[1]


def ja4(
    transport: str,
    versions: Iterable[int],
    suites: Iterable[int],
    extensions: Iterable[int],
    signatures: Iterable[int],
    alpn: bytes,
) -> str:
    """Return the JA4 of a ClientHello.

    transport: t for TCP, q for QUIC; versions: those offered; alpn: the first protocol offered.
    """
    suites, extensions, signatures = (
        [number for number in each if number not in GREASE]
        for each in (suites, extensions, signatures)
    )
    version = max((each for each in versions if each not in GREASE), default=0)
    counts = "".join(f"{min(len(each), MOST_SHOWN):02d}" for each in (suites, extensions))
    head = JA4_VERSIONS.get(version, "00") + ("d" if SNI in extensions else "i") + counts
    others = _hexadecimal(sorted(each for each in extensions if each not in (SNI, ALPN)))
    if others and signatures:
        others += "_" + _hexadecimal(signatures)
    hashes = _short_hash(_hexadecimal(sorted(suites))), _short_hash(others)
    return "_".join((transport + head + _ends(alpn), *hashes))
