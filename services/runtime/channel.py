"""How a process reaches another one over gRPC."""

import grpc

MAX_MESSAGE_BYTES = 16 << 20
"""Largest message that is sent or taken: a batch of rows with their frames has room, a request that
would fill the memory has not."""

KEEPALIVE_MS = 30_000
"""A peer that has gone without a word, as when its node lost power, is noticed after this long."""

RECONNECT_MS = 5_000
"""Longest pause before a broken connection is tried again."""

MESSAGE_SIZES = [
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
]


_OPTIONS = [
    *MESSAGE_SIZES,
    ("grpc.keepalive_time_ms", KEEPALIVE_MS),
    ("grpc.max_reconnect_backoff_ms", RECONNECT_MS),
    # Proxies are for the way out; these peers are ours.
    ("grpc.enable_http_proxy", 0),
]


def open_channel(address: str) -> grpc.Channel:
    """Return a channel to `host:port`; it connects when first used, and again after a break."""
    return grpc.insecure_channel(address, options=_OPTIONS)


def open_async_channel(address: str) -> grpc.aio.Channel:
    """Return the same for the asyncio loop that runs."""
    return grpc.aio.insecure_channel(address, options=_OPTIONS)
