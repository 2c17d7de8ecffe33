"""MySQL and MariaDB: https://dev.mysql.com/doc/dev/mysql-server/latest/PAGE_PROTOCOL.html.

`packets` and `values` read what is in a packet, `login` the beginning of a connection,
`compression` what is compressed; `answers` follows an answer to its end, `session` pairs commands
with them.
"""

from services.capture.dissectors import conversation
from services.capture.dissectors.dissector import ProtocolKind
from services.capture.dissectors.mysql.packets import SIGNATURES
from services.capture.dissectors.mysql.session import Session

PORTS = frozenset({3306, 3307, 4000, 6033})  # 4000: TiDB; 6033: ProxySQL

KIND = ProtocolKind("mysql", "MYSQL", "tcp", PORTS, SIGNATURES, conversation.of(Session))
