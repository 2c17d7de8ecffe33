"""What a user sees of PostgreSQL: recorded connections, and messages of the documentation."""

import pytest
import yaml

from services.capture.dissectors.conversation import ProtocolError
from services.capture.dissectors.postgresql import prepared
from services.capture.dissectors.postgresql.messages import MOST_KEPT
from services.capture.dissectors.postgresql.pairing import MOST_WAITING, MOST_WAITING_OCTETS
from services.capture.dissectors.postgresql.session import Session
from services.capture.dissectors.signatures import CLIENT, SERVER
from tests.unit.capture.dissectors.playback import losing_each, play, without_login
from tests.unit.capture.dissectors.recorded import CAPTURES, connections

PORT = 15432
NAMES = ("postgresql-psql", "postgresql-psycopg")


def message(kind, *parts):
    body = b"".join(each if isinstance(each, bytes) else each.encode() + b"\0" for each in parts)
    return kind.encode() + (len(body) + 4).to_bytes(4, "big") + body


def startup(**parameters):
    body = b"".join(f"{name}\0{value}\0".encode() for name, value in parameters.items())
    return (len(body) + 9).to_bytes(4, "big") + b"\0\3\0\0" + body + b"\0"


READY = message("Z", b"I")
HELLO = message("R", bytes(4)) + READY
PARSED, BOUND, NO_DATA = message("1"), message("2"), message("n")
ROW = message("D", b"\0\1\0\0\0\1x")
SYNC = message("S")


def columns(*names):
    return message("T", len(names).to_bytes(2, "big"), *(n.encode() + bytes(19) for n in names))


def parse(text, name=""):
    return message("P", name, text, b"\0\0")


def bind(*values, portal="", name=""):
    sent = b"".join(len(each).to_bytes(4, "big") + each for each in values)
    return message("B", portal, name, b"\0\0", len(values).to_bytes(2, "big"), sent, b"\0\0")


def execute(portal=""):
    return message("E", portal, bytes(4))


def error(code, text):
    return message("E", b"SERROR\0VERROR\0C", code, b"M", text, b"\0")


def talk(*said):
    """Play texts: client and server in turn, at 10 ns, 20 ns and so on; begun where it begins."""
    return play(Session, [(n % 2, each, 10 * n + 10) for n, each in enumerate(said)])


def begun(*said):
    """As talk, in a connection that has begun; return what follows."""
    return talk(startup(user="ada", database="shop"), HELLO, *said)[1:]


# ---- recorded connections


@pytest.mark.parametrize("name", NAMES)
def test_statements_are_those_of_the_servers_log(name):
    expected = yaml.safe_load((CAPTURES / f"{name}.yaml").read_text())
    seen = [
        exchange
        for said in connections(f"{name}.pcap", expected["port"])
        for exchange in play(Session, said)
        if exchange.request.get("query") and exchange.request["command"] != "Parse"
        and exchange.response is not None
    ]  # fmt: skip
    assert [e.request["query"] for e in seen] == [
        each["query"].replace("'open sesame'", "'[redacted]'") for each in expected["statements"]
    ]
    assert [e.response.get("error", {}).get("message") for e in seen] == [
        each.get("error") for each in expected["statements"]
    ]
    assert {e.response["status"] for e in seen} == {"OK", "ERROR"}
    assert all(e.error_type is None for e in seen)


def test_rows_and_counts_of_a_recorded_session():
    first, refused = connections("postgresql-psql.pcap", PORT)
    by_query = {e.request.get("query"): e for e in play(Session, first)}
    select = by_query["SELECT * FROM fruit ORDER BY id;"]
    assert select.response["rows"] == 3
    assert select.response["columns"] == ["id", "name", "price"]
    copied = by_query["COPY fruit (name, price) FROM STDIN;"]
    assert (copied.request["copyOctets"], copied.response["affected"]) == (21, 2)
    assert by_query["COPY fruit TO STDOUT;"].response["rows"] == 5
    several = by_query["SELECT 1 AS a ; SELECT 2 AS b, 3 AS c ; UPDATE fruit SET price = 0;"]
    assert [each["rows"] for each in several.response["results"]] == [1, 1, 0]
    assert several.response["affected"] == 5
    *_, login = play(Session, refused)
    assert login.response["error"]["code"] == "28P01"


@pytest.mark.parametrize("name", NAMES)
def test_no_password_and_no_key_is_told(name):
    for said in connections(f"{name}.pcap", PORT):
        told = repr(play(Session, said))
        assert "sesame" not in told
        assert "n=,r=" not in told


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("known", [True, False])
def test_a_gap_loses_what_it_touches(name, known):
    for said in connections(f"{name}.pcap", PORT):
        whole = without_login(play(Session, said))
        for lost, found in losing_each(Session, said, known):
            seen = without_login(found)
            assert sum(each not in seen for each in whole) <= 6, lost  # two batches, of a Sync
            wrong = [each for each in seen if each.error_type is None and each not in whole]
            commands = {each.request["command"] for each in wrong}
            assert commands <= {"Execute", "Sync"}, lost  # whose Parse, or statement, is lost


# ---- messages


def test_a_query_and_its_answer():
    (seen,) = begun(
        message("Q", "-- why\n select 1"), columns("a") + ROW + message("C", "SELECT 1") + READY
    )
    assert seen.request == {
        "command": "SELECT", "query": "-- why\n select 1", "user": "ada", "database": "shop",
    }  # fmt: skip
    assert seen.response == {
        "status": "OK", "rows": 1, "columns": ["a"], "commandTag": "SELECT 1",
        "transactionStatus": "idle",
    }  # fmt: skip
    assert (seen.start_ns, seen.end_ns, seen.version) == (30, 40, "3.0")
    assert (seen.request_size, seen.response_size) == (22, 59)


def test_statements_are_told_by_their_text():
    seen = begun(
        parse("UPDATE t SET a = $1", "up") + SYNC,
        PARSED + READY,
        bind(b"7", name="up") + execute() + SYNC,
        BOUND + message("C", "UPDATE 3") + READY,
    )
    assert [e.request["command"] for e in seen] == ["Parse", "UPDATE"]
    assert seen[1].request["query"] == "UPDATE t SET a = $1"
    assert seen[1].request["parameters"] == ["7"]
    assert seen[1].response["affected"] == 3


def test_a_portal_is_fetched_in_parts():
    fetched = ROW + message("s") + READY
    seen = begun(
        parse("SELECT 1") + bind(portal="p") + execute("p") + SYNC,
        PARSED + BOUND + fetched,
        execute("p") + SYNC,
        ROW + message("C", "SELECT 1") + READY,
    )
    assert [e.request["query"] for e in seen] == ["SELECT 1", "SELECT 1"]
    assert [e.response.get("suspended") for e in seen] == [True, None]


def test_a_pipeline_of_three_with_an_error_in_the_middle():
    one = parse("SELECT 1") + bind() + execute()
    seen = begun(
        one + parse("SELECT x") + bind() + execute() + one + SYNC,
        PARSED + BOUND + ROW + message("C", "SELECT 1") + error("42703", "no x") + READY,
        message("Q", "SELECT 2"),
        ROW + message("C", "SELECT 1") + READY,
    )
    assert [e.response and e.response["status"] for e in seen] == ["OK", "ERROR", None, "OK"]
    assert seen[1].response["error"]["code"] == "42703"
    assert seen[2].error_type == "pair-not-found"
    assert "error in the same batch" in seen[2].error_msg


def test_a_flush_gets_answers_before_the_sync():
    (seen,) = begun(
        parse("SELECT 1") + bind() + execute() + message("H"),
        PARSED + BOUND + ROW + message("C", "SELECT 1"),
        SYNC,
        READY,
    )
    assert seen.response["rows"] == 1
    assert seen.response["transactionStatus"] == "idle"


def test_encryption_is_not_looked_into():
    (seen,) = talk(b"\0\0\0\x08\x04\xd2\x16\x2f", b"S", b"\x16\x03\x01\x02\0", b"\x16\x03\x03")
    assert seen.request["command"] == "SSLRequest"
    assert seen.response["encryption"] == "accepted"


def test_a_cancel_request_is_told_without_its_key():
    (seen,) = talk(b"\0\0\0\x10\x04\xd2\x16\x2e\0\0\0\x07\xde\xad\xbe\xef")
    assert seen.request == {"command": "CancelRequest", "processID": 7}
    assert seen.error_type is None


def test_what_the_server_says_unasked():
    notified = message("A", b"\0\0\0\7", "news", "hello")
    seen = begun(message("Q", ""), message("I") + READY + notified)
    assert seen[1].asked_by == SERVER
    assert seen[1].request["channel"] == "news"
    assert seen[1].response is None


def test_the_middle_of_a_connection():
    session = Session()
    session.gap(SERVER, 0, 5)
    session.receive(SERVER, memoryview(b"st of a row" + ROW + message("C", "SELECT 9") + READY), 6)
    session.receive(CLIENT, memoryview(message("Q", "SELECT 1")), 7)
    session.receive(SERVER, memoryview(ROW + message("C", "SELECT 1") + READY), 8)
    before, seen = session.exchanges
    assert (before.request, before.error_type) == (None, "pair-not-found")
    assert (seen.request["query"], seen.error_type) == ("SELECT 1", None)


def test_an_answer_that_never_comes():
    (seen,) = begun(message("Q", "SELECT 1"))
    assert (seen.response, seen.error_type) == (None, "pair-not-found")


@pytest.mark.parametrize(
    ("side", "octets"),
    [
        (CLIENT, b"GET / HTTP/1.1\r\n\r\n"),
        (CLIENT, b"\x16\x03\x01\x02\0\x01\0\x01\xfc"),
        (CLIENT, b"\0\0\xff\xff\0\3\0\0user"),
        (SERVER, b"SSH-2.0-OpenSSH_9.2\r\n"),
        (SERVER, message("Z", b"X")),
        (SERVER, message("R", b"\0\0\0\x63")),
    ],
)
def test_other_protocols_are_refused(side, octets):
    with pytest.raises(ProtocolError):
        play(Session, [(side, octets, 1)] * 4)


def test_a_capture_that_begins_with_a_request():
    session = Session()
    session.gap(CLIENT, 0, 1)
    session.receive(CLIENT, memoryview(message("Q", "SELECT 1")), 1)
    session.gap(SERVER, 0, 2)
    session.receive(SERVER, memoryview(ROW + message("C", "SELECT 1") + READY), 2)
    (seen,) = session.exchanges
    assert (seen.response["rows"], seen.error_type) == (1, None)


# ---- limits


def test_a_long_query_is_cut_and_its_octets_are_not_kept():
    session = Session()
    text = message("Q", "SELECT '" + "x" * (1 << 20) + "'")
    most = 0
    for at in range(0, len(text), 1000):
        session.receive(CLIENT, memoryview(text[at : at + 1000]), at)
        most = max(most, session.buffered)
    session.receive(SERVER, memoryview(message("C", "SELECT 1") + READY), 9)
    (seen,) = session.exchanges
    assert most <= MOST_KEPT + 1000
    assert seen.request["bodyTruncated"]
    assert (len(seen.request["query"]), seen.request_size) == (MOST_KEPT - 5, len(text))


def test_what_waits_is_bounded():
    session = Session()
    for _ in range(MOST_WAITING + 100):
        session.receive(CLIENT, memoryview(message("Q", "SELECT 1")), 1)
    assert len(session.exchanges) == 100
    assert session.exchanges[0].error_type == "pair-not-found"


def test_names_are_bounded():
    session = Session()
    for number in range(5000):
        session.receive(CLIENT, memoryview(parse("SELECT" + "x" * 999, f"s{number}") + SYNC), 1)
        session.receive(SERVER, memoryview(PARSED + READY), 1)
    assert session.buffered <= prepared.MOST_OCTETS


def test_the_octets_of_what_waits_are_bounded():
    session = Session()
    for _ in range(100):
        session.receive(CLIENT, memoryview(message("Q", "SELECT '" + "x" * 60_000 + "'")), 1)
    assert session.buffered <= MOST_WAITING_OCTETS + MOST_KEPT
