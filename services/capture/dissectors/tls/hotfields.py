# mypy: ignore-errors
"""What a filter or the handshake itself wants of a hello at once; `hello` reads the rest, later.

Both read the same (RFC 8446, 4.1; RFC 5246, 7.4.1): what is refused here never comes there. A
position is -1 behind octets that are too few, and stays so.
"""

import numpy as np

from services.capture.dissectors.tls.hello import (
    ALPN,
    HOST_NAME,
    OLD_SUITE,
    PRE_SHARED_KEY,
    RANDOM,
    RETRY_RANDOM,
    SERVER_NAME,
    SUPPORTED_VERSIONS,
)
from services.capture.kernel import kernel, read_u8, read_u16, read_u64

BAD, GOOD, TOO_LONG = 0, 1, 2  # TOO_LONG: it announces more than it has
TRUNCATED = -1
EXTENSION_HEAD = 4  # octets: type and length
ALPN_HEAD = 3  # octets before the one name that a server chooses: two lengths
DRAFTS = 0x7F  # major version of drafts of RFC 8446
RETRY = tuple(
    np.uint64(int.from_bytes(RETRY_RANDOM[at : at + 8], "big")) for at in range(0, RANDOM, 8)
)


@kernel
def skip(at, end, octets):
    """Return the position behind so many octets."""
    return at + octets if at >= 0 and octets <= end - at else np.int64(TRUNCATED)


@kernel
def skip_vector(octets, at, end, size, is_whole):
    """Return the position behind a vector, whose length has `size` octets; of a message that was
    not captured whole, behind what there is of it.
    """
    if at < 0 or size > end - at:
        return np.int64(TRUNCATED)
    length = read_u8(octets, at) if size == 1 else read_u16(octets, at)
    at += size
    return skip(at, end, length if is_whole else min(length, end - at))


@kernel
def is_version(octets, position, end):
    """Whether a hello may begin so; nobody knows if not even that was captured."""
    if end - position < 2:
        return True
    major = read_u8(octets, position)
    return major == 3 or major == DRAFTS


@kernel
def find_host(octets, at, end):
    """Return (position, octets) of the first host name in a list of names."""
    if end - at < 2 or read_u16(octets, at) > end - at - 2:
        return np.int64(0), np.int64(0)
    end = at + 2 + read_u16(octets, at)
    at += 2
    while end - at >= 3:
        kind, length = read_u8(octets, at), read_u16(octets, at + 1)
        at += 3
        if length > end - at:
            break
        if kind == HOST_NAME and length > 0:
            return at, length
        at += length
    return np.int64(0), np.int64(0)


@kernel
def next_extension(octets, at, end):
    """Return (type, position of its content, position behind it)."""
    if end - at < EXTENSION_HEAD:
        return np.int64(0), at, np.int64(TRUNCATED)
    body = at + EXTENSION_HEAD
    return read_u16(octets, at), body, skip(body, end, read_u16(octets, at + 2))


@kernel
def read_client_hello(octets, position, end, is_whole):
    """Return (BAD, GOOD or TOO_LONG, position of the host name, its octets or 0)."""
    name_at = name_length = np.int64(0)
    if not is_version(octets, position, end):
        return BAD, name_at, name_length
    suites_at = skip_vector(octets, skip(position, end, 2 + RANDOM), end, 1, True)
    at = skip_vector(octets, suites_at, end, 2, is_whole)
    has_suites = at - suites_at >= 4  # one, behind the length
    at = skip_vector(octets, at, end, 1, True)  # compression methods
    if 0 <= at < end:
        end = skip_vector(octets, at, end, 2, is_whole)
        at = at + 2 if end >= 0 else np.int64(TRUNCATED)
        while 0 <= at < end:
            kind, body, at = next_extension(octets, at, end)
            if at >= 0 and kind == SERVER_NAME and name_length == 0:
                name_at, name_length = find_host(octets, body, at)
    if at >= 0 or not is_whole:
        return GOOD, name_at, name_length
    return TOO_LONG if has_suites else BAD, name_at, name_length


@kernel
def is_retry_random(octets, at):
    """Whether a server's random says that it asks for another hello (RFC 8446, 4.1.3)."""
    is_same = True
    for word in range(len(RETRY)):
        is_same &= read_u64(octets, at + 8 * word) == RETRY[word]
    return is_same


@kernel
def read_server_hello(octets, position, end, is_whole):
    """Return (BAD or GOOD, version, cipher suite, whether it is a retry, and resumed by a key,
    position of the application protocol's name, its octets or 0).
    """
    version = suite = name_at = name_length = np.int64(0)
    is_retry = is_resumed = False
    if not is_version(octets, position, end):
        return BAD, version, suite, is_retry, is_resumed, name_at, name_length
    at = skip(position, end, 2)
    if at >= 0:
        version = read_u16(octets, position)
    at = skip(at, end, RANDOM)
    if at >= 0:
        is_retry = is_retry_random(octets, position + 2)
    suite_at = skip_vector(octets, at, end, 1, True)
    at = skip(suite_at, end, 2)
    if at >= 0:
        suite = read_u16(octets, suite_at)
    at = skip(at, end, 1)  # compression method
    if 0 <= at < end:
        end = skip_vector(octets, at, end, 2, is_whole)
        at = at + 2 if end >= 0 else np.int64(TRUNCATED)
        while 0 <= at < end:
            kind, body, at = next_extension(octets, at, end)
            if at - body == 2 and kind == SUPPORTED_VERSIONS:
                version = read_u16(octets, body)
            elif at - body > ALPN_HEAD and kind == ALPN:
                name_at, name_length = body + ALPN_HEAD, at - body - ALPN_HEAD
            is_resumed |= at >= 0 and kind == PRE_SHARED_KEY
    status = GOOD if at >= 0 or not is_whole else BAD
    return status, version, suite, is_retry, is_resumed, name_at, name_length


@kernel
def is_old_hello(octets, position, end):
    """Whether the lengths in a hello of SSL 2.0 agree with each other (RFC 5246, E.2)."""
    if end - position < 8:
        return False
    suites = read_u16(octets, position + 2)
    others = read_u16(octets, position + 4) + read_u16(octets, position + 6)
    return suites > 0 and suites % OLD_SUITE == 0 and suites + others == end - position - 8
