# mypy: ignore-errors
"""The protocols that are recognised by their first octets: one line each. The pipeline reads it.

docs/adding-a-protocol.md says how to add one. HTTP/1 and DNS are not here: they have kernels that
see all segments and datagrams.
"""

from services.capture.dissectors.diameter import DIAMETER
from services.capture.dissectors.dissector import ProtocolKind
from services.capture.dissectors.ldap import CLDAP, LDAP
from services.capture.dissectors.radius import RADIUS

# fmt: off
PROTOCOLS: tuple[ProtocolKind, ...] = (
    CLDAP,
    DIAMETER,
    LDAP,
    RADIUS,
)
# fmt: on
