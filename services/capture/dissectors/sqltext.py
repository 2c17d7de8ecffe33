"""What can be said of the text of an SQL statement without parsing it."""

import re

MOST_BEFORE = 4096  # characters of comments that are skipped to find the first word

# Possessive throughout: what was skipped is never tried again, so time is linear.
_FIRST = re.compile(r"(?:[\s(;]++|--[^\n]*+|#[^\n]*+|/\*(?:[^*]|\*(?!/))*+\*/)*+([A-Za-z]++)")

_SECRET = re.compile(
    r"""\b((?:PASSWORD|IDENTIFIED\s++(?:WITH\s++\S++\s++)?(?:BY|AS|USING)(?:\s++PASSWORD)?+
        |MASTER_PASSWORD|SOURCE_PASSWORD)\s*+[=(]?+\s*+(?:FOR\s++[^=]{0,256}=\s*+)?(?:PASSWORD\s*+\(\s*+)?+)
        [EeUuNn]?(?:'(?:[^'\\]|''|\\.)*+(?:'|$)|"(?:[^"\\]|""|\\.)*+(?:"|$))""",
    re.IGNORECASE | re.VERBOSE | re.DOTALL,
)
REDACTED = "[redacted]"


def first_word(query: str) -> str:
    """Return the word that a statement begins with, in capitals, or ""; comments do not count."""
    found = _FIRST.match(query[:MOST_BEFORE])
    return found[1].upper() if found else ""


def without_passwords(query: str) -> str:
    """Return the statement without the passwords that CREATE USER and its like set."""
    lower = query.lower()
    if "password" not in lower and "identified" not in lower:
        return query
    return _SECRET.sub(rf"\1'{REDACTED}'", query)
