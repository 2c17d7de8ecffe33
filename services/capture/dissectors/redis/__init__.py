"""Redis and what speaks as it does: RESP2, RESP3 and inline commands.

https://redis.io/docs/latest/develop/reference/protocol-spec/. `framing` finds where values end,
`exchange` pairs commands and replies, `values` makes the JSON of those that are asked for.
"""

from services.capture.dissectors.redis.entries import RedisDissector
from services.capture.dissectors.redis.wire import PORTS, SIGNATURES

__all__ = ["PORTS", "SIGNATURES", "RedisDissector"]
