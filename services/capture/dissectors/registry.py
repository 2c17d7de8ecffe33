# mypy: ignore-errors
"""The protocols that are recognised by their first octets: one line each. The pipeline reads it.

docs/adding-a-protocol.md says how to add one. HTTP/1 and DNS are not here: they have kernels that
see all segments and datagrams.
"""

from services.capture.dissectors import amqp, kafka
from services.capture.dissectors.conversation import of
from services.capture.dissectors.dissector import ProtocolKind

# fmt: off
PROTOCOLS: tuple[ProtocolKind, ...] = (
    ProtocolKind("amqp", "AMQP", "tcp", frozenset({5672}), amqp.SIGNATURES, of(amqp.Amqp)),
    ProtocolKind("kafka", "KAFKA", "tcp", frozenset({9092}), kafka.SIGNATURES, of(kafka.Kafka)),
)
# fmt: on
