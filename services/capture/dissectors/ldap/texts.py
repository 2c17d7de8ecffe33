"""Values of LDAP as JSON has them, each bounded. Used by `filters` and `messages`."""

from __future__ import annotations

import base64
import codecs
from typing import Any

MOST_OCTETS = 4096  # of a value or name: a photo in an entry would otherwise fill a recording
CONTROLS = frozenset(map(chr, range(32))) - frozenset("\t\r\n")  # no text has these
CUT = "…"  # stands where the rest of a text was left out


def text(octets: bytes) -> str:
    """Return a name or a sentence, which is UTF-8; what is not is shown as Latin-1."""
    found = _utf8(octets)
    return octets[:MOST_OCTETS].decode("latin-1") if found is None else found


def value(octets: bytes) -> Any:
    """Return a text, or {"base64": …} where the octets are none."""
    found = _utf8(octets)
    if found is not None and (found.isprintable() or not any(c in CONTROLS for c in found)):
        return found
    return {"base64": base64.b64encode(octets[:MOST_OCTETS]).decode()}


def _utf8(octets: bytes) -> str | None:
    """Return UTF-8 as text, cut at the limit; None when it is none."""
    try:
        if len(octets) <= MOST_OCTETS:
            return octets.decode()
        return codecs.getincrementaldecoder("utf-8")().decode(octets[:MOST_OCTETS]) + CUT
    except UnicodeDecodeError:
        return None
