"""The methods of AMQP 0-9-1, with RabbitMQ's extensions, and the properties of a message.

Numbers and arguments are those of https://www.rabbitmq.com/resources/specs/amqp0-9-1.extended.xml.
Names of arguments are in camelCase, as entries have them.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from services.capture.dissectors.amqp.values import Reader

# class, its number; below it: number and name of a method, its answers' numbers, its arguments.
# Types: o octet, s short, l long, L long long, t short text, T long text, f field table, b bit,
# x a secret. `-` is an argument that has no meaning any more.
_TABLE = """
connection 10
  10 start >11 versionMajor:o versionMinor:o serverProperties:f mechanisms:T locales:T
  11 start-ok clientProperties:f mechanism:t response:x locale:t
  20 secure >21 challenge:x
  21 secure-ok response:x
  30 tune >31 channelMax:s frameMax:l heartbeat:s
  31 tune-ok channelMax:s frameMax:l heartbeat:s
  40 open >41 virtualHost:t -:t -:b
  41 open-ok
  50 close >51 replyCode:s replyText:t classId:s methodId:s
  51 close-ok
  60 blocked reason:t
  61 unblocked
  70 update-secret >71 newSecret:x reason:t
  71 update-secret-ok
channel 20
  10 open >11
  11 open-ok
  20 flow >21 active:b
  21 flow-ok active:b
  40 close >41 replyCode:s replyText:t classId:s methodId:s
  41 close-ok
access 30
  10 request >11 realm:t exclusive:b passive:b active:b write:b read:b
  11 request-ok ticket:s
exchange 40
  10 declare >11 -:s exchange:t type:t passive:b durable:b autoDelete:b internal:b noWait:b arguments:f
  11 declare-ok
  20 delete >21 -:s exchange:t ifUnused:b noWait:b
  21 delete-ok
  30 bind >31 -:s destination:t source:t routingKey:t noWait:b arguments:f
  31 bind-ok
  40 unbind >51 -:s destination:t source:t routingKey:t noWait:b arguments:f
  51 unbind-ok
queue 50
  10 declare >11 -:s queue:t passive:b durable:b exclusive:b autoDelete:b noWait:b arguments:f
  11 declare-ok queue:t messageCount:l consumerCount:l
  20 bind >21 -:s queue:t exchange:t routingKey:t noWait:b arguments:f
  21 bind-ok
  30 purge >31 -:s queue:t noWait:b
  31 purge-ok messageCount:l
  40 delete >41 -:s queue:t ifUnused:b ifEmpty:b noWait:b
  41 delete-ok messageCount:l
  50 unbind >51 -:s queue:t exchange:t routingKey:t arguments:f
  51 unbind-ok
basic 60
  10 qos >11 prefetchSize:l prefetchCount:s global:b
  11 qos-ok
  20 consume >21 -:s queue:t consumerTag:t noLocal:b noAck:b exclusive:b noWait:b arguments:f
  21 consume-ok consumerTag:t
  30 cancel >31 consumerTag:t noWait:b
  31 cancel-ok consumerTag:t
  40 publish + -:s exchange:t routingKey:t mandatory:b immediate:b
  50 return + replyCode:s replyText:t exchange:t routingKey:t
  60 deliver + consumerTag:t deliveryTag:L redelivered:b exchange:t routingKey:t
  70 get >71,72 -:s queue:t noAck:b
  71 get-ok + deliveryTag:L redelivered:b exchange:t routingKey:t messageCount:l
  72 get-empty
  80 ack deliveryTag:L multiple:b
  90 reject deliveryTag:L requeue:b
  100 recover-async requeue:b
  110 recover >111 requeue:b
  111 recover-ok
  120 nack deliveryTag:L multiple:b requeue:b
confirm 85
  10 select >11 noWait:b
  11 select-ok
tx 90
  10 select >11
  11 select-ok
  20 commit >21
  21 commit-ok
  30 rollback >31
  31 rollback-ok
"""  # noqa: E501

_READERS: Mapping[str, Callable[[Reader], Any]] = {
    "o": Reader.octet, "s": Reader.short, "l": Reader.long, "L": Reader.long_long,
    "t": Reader.short_text, "T": Reader.long_text, "f": Reader.table, "x": Reader.secret,
}  # fmt: skip

_PROPERTIES = (
    "contentType:t contentEncoding:t headers:f deliveryMode:o priority:o correlationId:t replyTo:t"
    " expiration:t messageId:t timestamp:L type:t userId:t appId:t clusterId:t"
)


@dataclass(frozen=True, slots=True)
class Method:
    """What is known of a method."""

    name: str
    """As entries have it: `basic publish`."""
    answers: frozenset[int]
    """Numbers, as METHODS has them, of what answers it; empty where nothing does."""
    is_answer: bool
    has_content: bool
    """A header and a body follow."""
    arguments: tuple[tuple[str, Callable[[Reader], Any] | None], ...]
    """Name and reader of each; None for a bit."""

    def read(self, reader: Reader) -> dict[str, Any]:
        """Return the arguments; older versions lack some of the last. Raises ProtocolError."""
        found: dict[str, Any] = {"method": self.name}
        bits = bit = 0
        for name, read in self.arguments:
            if reader.at == reader.end and (read is not None or bit == 0):
                break
            if read is None:  # bits share an octet, the first is the lowest
                if bit == 0:
                    bits, bit = reader.octet(), 1
                found[name] = bits & bit != 0
                bit = bit << 1 & 0xFF
            else:
                found[name] = read(reader)
                bit = 0
        found.pop("-", None)
        return found


def read_properties(reader: Reader) -> dict[str, Any]:
    """Read the property flags and list of a content header (4.2.6.1). Raises ProtocolError."""
    flags = reader.short()
    more = flags
    while more & 1:  # a further word of flags, of which no version has defined one
        more = reader.short()
    return {name: read(reader) for bit, name, read in PROPERTIES if flags & bit}


def _parsed() -> dict[int, Method]:
    found: dict[int, Method] = {}
    class_name, class_number = "", 0
    for line in _TABLE.strip().splitlines():
        number, name, *rest = line.split()
        if not line.startswith(" "):
            class_name, class_number = number, int(name) << 16
            continue
        marks = [each for each in rest if ":" not in each]
        pairs = [each.split(":") for each in rest if ":" in each]
        answers = [each[1:].split(",") for each in marks if each.startswith(">")]
        found[class_number | int(number)] = Method(
            f"{class_name} {name}",
            frozenset(class_number | int(each) for each in answers[0]) if answers else frozenset(),
            False,
            "+" in marks,
            tuple((each, _READERS.get(kind)) for each, kind in pairs),
        )
    return found


def _marked(methods: dict[int, Method]) -> dict[int, Method]:
    """Return them with is_answer where another names it as its answer."""
    answers = frozenset().union(*(each.answers for each in methods.values()))
    return {
        number: Method(each.name, each.answers, number in answers, each.has_content, each.arguments)
        for number, each in methods.items()
    }


METHODS: Mapping[int, Method] = _marked(_parsed())
"""By class number << 16 | method number."""
PROPERTIES = tuple(
    (1 << 15 - place, name, _READERS[kind])
    for place, (name, kind) in enumerate(each.split(":") for each in _PROPERTIES.split())
)
