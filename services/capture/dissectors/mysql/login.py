"""The beginning of a connection of MySQL: who logs in to what, and what both sides can do.

Passwords, their hashes and the salt for them are not read.
"""

from dataclasses import dataclass, field

from services.capture.dissectors.conversation import ProtocolError
from services.capture.dissectors.mysql import packets as wire
from services.capture.dissectors.mysql.packets import Json

MOST_ATTRIBUTES = 64  # of a client: of more, the first ones


@dataclass(slots=True)
class Greeting:
    """What a server says first."""

    version: str
    connection: int
    plugin: str

    @property
    def told(self) -> Json:
        """What an entry says of it."""
        return {"serverVersion": self.version, "connectionID": self.connection}


@dataclass(slots=True)
class Login:
    """What a client answers."""

    capabilities: int
    wants_tls: bool = False
    user: str = ""
    database: str = ""
    told: Json = field(default_factory=dict)


def read_greeting(payload: bytes) -> Greeting:
    """Read a Handshake of protocol 10. Raises ProtocolError."""
    if payload[:1] != b"\x0a":
        raise ProtocolError(f"protocol {payload[:1].hex()} of MySQL is not known")
    version, at = wire.zero_ended(payload, 1)
    connection = wire.u32(payload, at)
    plugin = b""
    at += 4 + 8 + 1 + 2 + 1 + 2 + 2  # number, salt, zero, capabilities, charset, status, the rest
    if at < len(payload):
        salt = max(13, payload[at] - 8) if payload[at] else 13
        plugin, _ = wire.zero_ended(payload, at + 1 + 10 + salt)
    if not version.isascii():
        raise ProtocolError("the version of a server is ASCII")
    return Greeting(version.decode(), connection, wire.text(plugin))


def read_login(payload: bytes) -> Login:
    """Read an SSLRequest or a HandshakeResponse. Raises ProtocolError."""
    low = wire.u16(payload, 0)
    if not low & wire.PROTOCOL_41:
        return _read_320(payload, low)
    login = Login(wire.u32(payload, 0))
    if len(payload) == 32 and login.capabilities & wire.TLS:
        login.wants_tls = True
        return login
    user, at = wire.zero_ended(payload, 32)
    login.user = wire.text(user)
    at = _skip_password(payload, at, login.capabilities)
    if login.capabilities & wire.CONNECT_WITH_DB:
        database, at = wire.zero_ended(payload, at)
        login.database = wire.text(database)
    if login.capabilities & wire.PLUGIN_AUTH:
        plugin, at = wire.zero_ended(payload, at)
        login.told["plugin"] = wire.text(plugin)
    if login.capabilities & wire.CONNECT_ATTRS and at < len(payload):
        login.told["attributes"] = _attributes(payload, at)
    return login


def _read_320(payload: bytes, capabilities: int) -> Login:
    """Read a HandshakeResponse320, of clients before 4.1."""
    if len(payload) == 5 and capabilities & wire.TLS:
        return Login(capabilities, wants_tls=True)
    user, at = wire.zero_ended(payload, 5)
    login = Login(capabilities, user=wire.text(user))
    if capabilities & wire.CONNECT_WITH_DB:
        _, at = wire.zero_ended(payload, at)
        login.database = wire.text(wire.zero_ended(payload, at)[0])
    return login


def _skip_password(payload: bytes, at: int, capabilities: int) -> int:
    if capabilities & wire.LENENC_AUTH:
        length, at = wire.lenenc(payload, at)
        return at + length
    if capabilities & wire.SECURE_CONNECTION:
        return at + 1 + wire.uint(payload, at, 1)
    return wire.zero_ended(payload, at)[1]


def _attributes(payload: bytes, at: int) -> dict[str, str]:
    total, at = wire.lenenc(payload, at)
    end = min(at + total, len(payload))
    found: dict[str, str] = {}
    while at < end and len(found) < MOST_ATTRIBUTES:
        try:
            name, at = wire.lenenc_octets(payload, at)
            value, at = wire.lenenc_octets(payload, at)
        except ProtocolError:  # the packet was cut
            break
        found[wire.text(name)] = wire.text(value)
    return found


def read_change_user(payload: bytes, capabilities: int) -> tuple[str, str]:
    """Return (user, database) of a COM_CHANGE_USER, whose password is skipped."""
    user, at = wire.zero_ended(payload, 1)
    if capabilities & wire.SECURE_CONNECTION or not capabilities:
        at += 1 + wire.uint(payload, at, 1)
    else:
        _, at = wire.zero_ended(payload, at)
    return wire.text(user), wire.text(wire.zero_ended(payload, at)[0])
