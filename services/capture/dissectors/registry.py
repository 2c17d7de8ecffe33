# mypy: ignore-errors
"""The protocols that are recognised by their first octets: one line each. The pipeline reads it.

docs/adding-a-protocol.md says how to add one. HTTP/1 and DNS are not here: they have kernels that
see all segments and datagrams.
"""

from services.capture.dissectors import amqp, kafka, mongodb, mysql, postgresql, redis
from services.capture.dissectors.conversation import of
from services.capture.dissectors.diameter import DIAMETER
from services.capture.dissectors.dissector import ProtocolKind
from services.capture.dissectors.http2 import frames as http2
from services.capture.dissectors.http2.entries import Http2Dissector
from services.capture.dissectors.ldap import CLDAP, LDAP
from services.capture.dissectors.radius import RADIUS
from services.capture.dissectors.tls import quic
from services.capture.dissectors.tls import wire as tls
from services.capture.dissectors.tls.entries import TlsDissector
from services.capture.dissectors.websocket import WebSocket

# fmt: off
PROTOCOLS: tuple[ProtocolKind, ...] = (
    ProtocolKind("amqp", "AMQP", "tcp", frozenset({5672}), amqp.SIGNATURES, of(amqp.Amqp)),
    CLDAP,
    DIAMETER,
    ProtocolKind("http", "HTTP/2", "tcp", frozenset({80, 50051}), http2.SIGNATURES, Http2Dissector),
    ProtocolKind("kafka", "KAFKA", "tcp", frozenset({9092}), kafka.SIGNATURES, of(kafka.Kafka)),
    LDAP,
    mongodb.KIND,
    mysql.KIND,
    postgresql.KIND,
    RADIUS,
    ProtocolKind("redis", "REDIS", "tcp", redis.PORTS, redis.SIGNATURES, redis.RedisDissector),
    ProtocolKind("tls", "TLS", "tcp", frozenset({443}), tls.SIGNATURES, TlsDissector),
    ProtocolKind("tls", "TLS", "udp", frozenset({443}), quic.SIGNATURES, of(quic.Quic)),
    ProtocolKind("ws", "WS", "tcp", frozenset(), (), of(WebSocket)),  # by an upgrade of HTTP/1
)
# fmt: on
