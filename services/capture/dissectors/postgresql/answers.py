"""What each message of a server of PostgreSQL adds to the answer of a unit."""

from collections.abc import Callable

from services.capture.dissectors.conversation import ProtocolError
from services.capture.dissectors.inbox import Message
from services.capture.dissectors.postgresql import messages as wire
from services.capture.dissectors.postgresql.units import Unit
from services.capture.dissectors.signatures import SERVER

MOST_PARAMETERS = 64  # of a server: of more, the first ones; PostgreSQL 18 has 15


def _read_columns(unit: Unit, message: Message) -> None:
    unit.columns = wire.column_names(message.octets)


def _read_row(unit: Unit, _: Message) -> None:
    unit.rows += 1
    unit.result_rows += 1


def _read_copy(unit: Unit, message: Message) -> None:
    unit.copied[SERVER] += message.size - wire.HEAD


def _read_copy_in(unit: Unit, _: Message) -> None:
    unit.copies_in = True


def _read_complete(unit: Unit, message: Message) -> None:
    unit.complete(wire.read_text(message.octets, wire.HEAD)[0])


def _read_suspended(unit: Unit, _: Message) -> None:
    unit.response["suspended"] = True


def _read_error(unit: Unit, message: Message) -> None:
    unit.fail(wire.error_fields(message.octets))


def _read_notice(unit: Unit, message: Message) -> None:
    unit.notice(wire.error_fields(message.octets))


def _read_ready(unit: Unit, message: Message) -> None:
    state = message.octets[wire.HEAD] if len(message.octets) > wire.HEAD else 0
    if state not in wire.TRANSACTION and not message.lacks:
        raise ProtocolError("ReadyForQuery names no state of a transaction")
    unit.response["transactionStatus"] = wire.TRANSACTION.get(state, "")


def _read_authentication(unit: Unit, message: Message) -> None:
    number = wire.read_i32(message.octets, wire.HEAD)
    if number not in wire.AUTHENTICATION_NUMBERS:
        raise ProtocolError(f"there is no authentication {number}")
    if number in wire.AUTHENTICATION and (number or "authentication" not in unit.response):
        unit.response["authentication"] = wire.AUTHENTICATION[number]
    if number == 10:
        unit.response["mechanisms"] = wire.sasl_mechanisms(message.octets)


def _read_parameter(unit: Unit, message: Message) -> None:
    name, at = wire.read_text(message.octets, wire.HEAD)
    told = unit.response.setdefault("parameters", {})
    if len(told) < MOST_PARAMETERS:
        told[name[: wire.MOST_VALUE]] = wire.read_text(message.octets, at)[0][: wire.MOST_VALUE]


def _read_key(unit: Unit, message: Message) -> None:
    unit.response["processID"] = wire.read_i32(message.octets, wire.HEAD)  # the key is a secret


READERS: dict[int, Callable[[Unit, Message], None]] = {
    ord("T"): _read_columns, ord("D"): _read_row, ord("d"): _read_copy,
    ord("G"): _read_copy_in, ord("W"): _read_copy_in,
    ord("C"): _read_complete, ord("s"): _read_suspended,
    ord("E"): _read_error, ord("N"): _read_notice,
    ord("Z"): _read_ready, ord("R"): _read_authentication,
    ord("S"): _read_parameter, ord("K"): _read_key,
}  # fmt: skip
"""By type."""
