"""Values as people write them in flags, variables and files: sizes, percentages, addresses.

Without pydantic, which takes a tenth of a second to import.
"""

import re
from pathlib import Path

_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
_UNITS |= {"ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}
_SIZE = re.compile(r"\s*(\d{1,18}(?:\.\d{1,6})?)\s*([kmgt]i?)?b?\s*", re.IGNORECASE | re.ASCII)


def octets(value: object) -> object:
    """Return the number of octets that "500Mi", "512MB", "1.5GiB" or 4096 means.

    ki, mi, gi and ti are powers of 1024, k, m, g and t of 1000. Raises ValueError.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    match = _SIZE.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise ValueError(f"{value!r} is not a size; write for instance 500Mi, 512MB or 65536.")
    number, unit = match.groups()
    return int(float(number) * _UNITS[(unit or "").lower()])


def written(size: int) -> str:
    """Return a size as a person would write it."""
    for unit in ("ti", "gi", "mi", "ki", "t", "g", "m", "k"):
        if size and size % _UNITS[unit] == 0:
            return f"{size // _UNITS[unit]}{unit.capitalize() if len(unit) > 1 else unit.upper()}"
    return str(size)


def percentage(value: object) -> float:
    """Return the percentage that "25", "0.5" or 12.5 means: above 0, 100 at most.

    Raises ValueError.
    """
    try:
        number = float(value) if isinstance(value, str | int | float) else 0.0
    except (ValueError, OverflowError):
        number = 0.0
    if isinstance(value, bool) or not 0 < number <= 100:
        raise ValueError(
            f"{value!r} is no part of the streams; write percent, above 0 and at most 100, as in "
            "25 or 0.5."
        )
    return number


def address(value: str) -> str:
    """Return `value` if it is host:port; raises ValueError."""
    host, _, port = value.rpartition(":")
    if not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ValueError(f"{value!r} is not an address; write host:port, as in 127.0.0.1:8897.")
    if ":" in host and not (host.startswith("[") and host.endswith("]")):
        raise ValueError(
            f"{value!r} is not an address; an IPv6 host is in brackets, as in [::1]:1."
        )
    return value


def interface(value: str) -> str:
    """Return `value` if it can be the name of an interface; raises ValueError."""
    # The kernel's rule: dev_valid_name(), and IFNAMSIZ is 16 with the final zero.
    if not re.fullmatch(r"[^/:\s]{1,15}", value) or value in (".", ".."):
        raise ValueError(f"{value!r} is not the name of an interface; `ip link` lists them.")
    return value


def split_names(value: object) -> object:
    """Return the names in "eth0,lo", or in a list of such texts."""
    texts = [value] if isinstance(value, str | Path) else value
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        return texts
    return [name.strip() for text in texts for name in text.split(",")]
