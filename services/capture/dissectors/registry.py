# mypy: ignore-errors
"""The protocols that are recognised by their first octets: one line each. The pipeline reads it.

docs/adding-a-protocol.md says how to add one. HTTP/1 and DNS are not here: they have kernels that
see all segments and datagrams.
"""

from services.capture.dissectors import mongodb, mysql, postgresql
from services.capture.dissectors.dissector import ProtocolKind

# fmt: off
PROTOCOLS: tuple[ProtocolKind, ...] = (
    mongodb.KIND,
    mysql.KIND,
    postgresql.KIND,
)
# fmt: on
