"""Text of addresses. They are kept as two 64-bit numbers, IPv4 as IPv4-mapped IPv6 (RFC 4291)."""

import functools
import ipaddress

import numpy as np

CACHED_ADDRESSES = 65_536  # distinct addresses that a node sees in a while; 100 octets each


@functools.lru_cache(CACHED_ADDRESSES)
def address_text(high: int, low: int) -> str:
    """Return the text of an address, as RFC 5952 has it."""
    if high == 0 and low >> 32 == 0xFFFF:
        return str(ipaddress.IPv4Address(low & 0xFFFFFFFF))
    return str(ipaddress.IPv6Address(high << 64 | low))


def address_texts(high: np.ndarray, low: np.ndarray) -> list[str]:
    """Return the texts of many; two uint64 arrays of the same length."""
    return [address_text(*halves) for halves in zip(high.tolist(), low.tolist(), strict=True)]
