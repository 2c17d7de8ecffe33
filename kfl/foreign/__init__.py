"""Filters of Wireshark and tcpdump: recognises them, so that an error can say them in KFL.

`parse` and `resolve` call `foreign_dialect` when a filter cannot be understood.
"""

from __future__ import annotations

import re

from kfl.errors import KflError
from kfl.slips.written import blank, error_at

_WIRESHARK_FIELD = re.compile(
    r"(?<![\w.\[])(?:(?:ip|ipv6|tcp|udp|eth|frame|icmp|icmpv6|arp|vlan|sll|data)\.(?:[a-z_]+)"
    r"|(?:http|http2|dns|tls|ssl|grpc|redis|kafka|amqp|mysql|pgsql|mongo|websocket|sctp|ldap)"
    r"\.[a-z_]+)(?:\.[a-z_0-9]+)*\b(?!\s*\()"
)

_WIRESHARK_SEARCH = re.compile(
    r"(?<![\w.])(?:frame|eth|ip|tcp|udp|http2?|dns|tls|data|grpc)\s+(?:contains|matches)\s"
)

_LONE = re.compile(
    r"(?:^|[\s(!])(?:arp|rarp|igmp|stp|lldp|ip6?|ipv6|icmp6|icmpv6|ssl|pgsql|websocket)"
    r"(?=\s*(?:$|\)|&&|\|\||\b(?:and|or)\b))"
)
"""Protocols of theirs that are no words here."""

_BPF = re.compile(
    r"(?:^|[\s(!])(?:(?:src|dst)\s+(?:(?:or|and)\s+(?:src|dst)\s+)?(?:host|net|port|portrange)\s+\S"
    r"|(?:host|net|port|portrange)\s+(?!(?:in|contains|matches|is|like)\b)(?:[\w.:/-]+|\()"
    r"|(?:src|dst)\s+\d+\.\d+"
    r"|(?:ip6?|tcp|udp|sctp|ether|arp|icmp)\s+"
    r"(?:host|port|net|portrange|proto|src|dst|multicast|broadcast)\b"
    r"|(?:tcp|udp|ip|ip6|icmp|ether)\s*\[|(?:less|greater)\s+\d)",
)

_SPACE = " \t\r\n(!"


def foreign_dialect(text: str) -> KflError | None:
    """The error for a filter that is clearly Wireshark's or tcpdump's; None when it is not.

    Its suggestion is the filter in KFL, as far as there is one.
    """
    plain = blank(text)
    field = next(filter(_is_wiresharks, _WIRESHARK_FIELD.finditer(plain)), None)
    if field:
        message = (
            f"`{field.group()}` is a field of Wireshark's display filters, which KFL does not use."
        )
        return _in_kfl(text, field.start(), message, "wireshark")
    searched = _WIRESHARK_SEARCH.search(plain)
    capture = _BPF.search(plain)
    lone = _LONE.search(plain)
    if searched or (lone and not capture):
        sign = searched or lone
        assert sign is not None
        return _in_kfl(
            text,
            _begin(sign),
            "This looks like a display filter of Wireshark, which KFL does not use.",
            "wireshark",
        )
    if capture:
        return _in_kfl(
            text,
            _begin(capture),
            "This looks like a capture filter (BPF, as in tcpdump), which KFL does not use.",
            "bpf",
        )
    return None


def _is_wiresharks(found: re.Match[str]) -> bool:
    """Not `redis.command`, which is a slip for redis_command, nor `http.status`."""
    from kfl.foreign.wireshark_fields import FIELDS, PACKET_PREFIXES

    name = found.group()
    root, *below = name.split(".")
    known = any(field.startswith(f"{root}.{below[0]}.") for field in FIELDS)
    return name in FIELDS or root in PACKET_PREFIXES or known or len(below) > 1


def _begin(sign: re.Match[str]) -> int:
    return sign.start() + len(sign.group()) - len(sign.group().lstrip(_SPACE))


def _in_kfl(text: str, offset: int, message: str, language: str) -> KflError:
    """The error with the translation, or with the reason why there is none."""
    from kfl.foreign import bpf, wireshark  # few filters are of these languages
    from kfl.foreign.translation import NotThisLanguageError

    translate = wireshark.translate if language == "wireshark" else bpf.translate
    try:
        done = translate(text)
    except NotThisLanguageError:
        return error_at(
            text, offset, message, 'Write, for example, src.ip == "10.0.0.1" or dst.port == 80.'
        )
    said = list(done.notes)
    for lost in done.lost[:3]:
        reason = f": {lost.why}" if lost.why else ""
        said.append(f"`{lost.part}` has no KFL{reason}.")
    if done.text:
        said.append(f"{'Without it' if done.lost else 'In KFL'}: {done.text}")
    return error_at(text, done.lost[0].offset if done.lost else offset, message, " ".join(said))
