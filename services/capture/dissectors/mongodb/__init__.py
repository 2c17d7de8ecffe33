"""MongoDB: https://www.mongodb.com/docs/manual/reference/mongodb-wire-protocol/.

`messages` reads them, `bson` what is in them; `entries` says what is told, `session` pairs them.
"""

from services.capture.dissectors import conversation
from services.capture.dissectors.dissector import ProtocolKind
from services.capture.dissectors.mongodb.messages import SIGNATURES
from services.capture.dissectors.mongodb.session import Session

PORTS = frozenset({27017, 27018, 27019, 10255})  # shards, config servers; 10255: Cosmos DB

KIND = ProtocolKind("mongodb", "MONGO", "tcp", PORTS, SIGNATURES, conversation.of(Session))
