"""PostgreSQL, protocol 3.0 and later (https://www.postgresql.org/docs/current/protocol.html).

`messages` reads them, `units` says what a request and its answer are, `session` pairs them.
"""

from services.capture.dissectors import conversation
from services.capture.dissectors.dissector import ProtocolKind
from services.capture.dissectors.postgresql.messages import SIGNATURES
from services.capture.dissectors.postgresql.session import Session

PORTS = frozenset({5432, 5433, 6432})  # 6432: PgBouncer

KIND = ProtocolKind(
    "postgresql", "PGSQL", "tcp", PORTS, SIGNATURES, conversation.of(Session)
)  # fmt: skip
