"""What a user sees of MySQL: recorded connections, and packets as the documentation has them."""

import zlib

import pytest
import yaml
import zstandard

from services.capture.dissectors.conversation import ProtocolError
from services.capture.dissectors.inbox import Message
from services.capture.dissectors.mysql import packets as wire
from services.capture.dissectors.mysql import statements
from services.capture.dissectors.mysql.compression import MOST_PLAIN, decompress
from services.capture.dissectors.mysql.session import MOST_WAITING, MOST_WAITING_OCTETS, Session
from services.capture.dissectors.signatures import CLIENT, SERVER
from tests.unit.capture.dissectors.playback import losing_each, play, without_login
from tests.unit.capture.dissectors.recorded import CAPTURES, connections

PORT = 13306
NAMES = ("mysql-cli", "mysql-compressed", "mysql-connector")
LOGGED = {
    "Login": "Connect", "COM_QUERY": "Query", "COM_STMT_PREPARE": "Prepare",
    "COM_STMT_EXECUTE": "Execute", "COM_STMT_CLOSE": "Close stmt", "COM_STMT_RESET": "Reset stmt",
    "COM_INIT_DB": "Init DB", "COM_QUIT": "Quit", "COM_STATISTICS": "Statistics",
    "COM_CHANGE_USER": "Change user",
}  # fmt: skip


def packet(number, payload):
    return len(payload).to_bytes(3, "little") + bytes([number]) + payload


def packets(*payloads, first=1):
    return b"".join(packet(n & 255, each) for n, each in enumerate(payloads, first))


def string(value):
    return bytes([len(value)]) + value.encode()


def column(name):
    parts = ("def", "shop", "t", "t", name, name)
    return b"".join(map(string, parts)) + b"\x0c\x21\0\0\1\0\0\xfd\0\0\0\0\0"


def ok(affected=0, status=2, head=b"\0"):
    return head + bytes([affected, 0]) + status.to_bytes(2, "little") + b"\0\0"


def eof(status=2):
    return b"\xfe\0\0" + status.to_bytes(2, "little")


def error(code, state, text):
    return b"\xff" + code.to_bytes(2, "little") + b"#" + state.encode() + text.encode()


def query(text):
    return packet(0, b"\x03" + text.encode())


CAPABILITIES = wire.PROTOCOL_41 | wire.SECURE_CONNECTION | wire.PLUGIN_AUTH | wire.CONNECT_WITH_DB
GREETING = packet(
    0, b"\x0a8.0.30\0" + b"\7\0\0\0" + b"saltsalt\0" + b"\xff\xff\x21\2\0\xff\xff\x15" + bytes(10)
    + b"saltsaltsalt\0mysql_native_password\0",
)  # fmt: skip


def login(capabilities=CAPABILITIES, secret=b"hash of secret"):
    head = capabilities.to_bytes(4, "little") + b"\0\0\0\1\x21" + bytes(23)
    return packet(
        1, head + b"ada\0" + bytes([len(secret)]) + secret + b"shop\0mysql_native_password\0"
    )


def talk(*said):
    """Play texts: server and client in turn, at 10 ns, 20 ns and so on."""
    return play(Session, [((n + 1) % 2, each, 10 * n + 10) for n, each in enumerate(said)])


def begun(*said, capabilities=CAPABILITIES):
    """As talk, of a client that has logged in and asks first; return what follows."""
    return talk(GREETING, login(capabilities), packet(2, ok()), *said)[1:]


# ---- recorded connections


def logged(exchange):
    """What the server's log says of an exchange, or None."""
    request = exchange.request
    kind = LOGGED.get(request["command"])
    if request["command"] == "COM_INIT_DB":
        return f"{kind} {request['database']}"
    if request["command"] in ("COM_QUERY", "COM_STMT_PREPARE"):
        failed = exchange.response["status"] == "ERROR" and kind == "Prepare"
        return None if failed else f"{kind} {request['query']}"
    if request["command"] == "COM_STMT_CLOSE" and "query" not in request:
        return None  # of a statement that was not prepared
    return kind


@pytest.mark.parametrize("name", NAMES)
def test_commands_are_those_of_the_servers_log(name):
    expected = yaml.safe_load((CAPTURES / f"{name}.yaml").read_text())
    seen = [e for said in connections(f"{name}.pcap", PORT) for e in play(Session, said)]
    assert [text for e in seen if (text := logged(e)) is not None] == [
        line.split(" ")[0] if line.startswith("Connect")
        else "Change user" if line.startswith("Change user")
        else line.replace("'open sesame'", "'[redacted]'")
        for line in expected["log"]
        if "Access denied" not in line
    ]  # fmt: skip
    assert all(e.error_type is None for e in seen)


def test_rows_and_errors_of_a_recorded_session():
    first, refused = connections("mysql-cli.pcap", PORT)
    by_query = {e.request.get("query"): e for e in play(Session, first)}
    select = by_query["SELECT * FROM fruit ORDER BY id"].response
    assert (select["rows"], select["columns"]) == (3, ["id", "name", "price"])
    doubled = by_query["INSERT INTO fruit (name) VALUES ('apple')"].response
    assert (doubled["error"]["code"], doubled["error"]["sqlState"]) == (1062, "23000")
    loaded = by_query["LOAD DATA LOCAL INFILE '/tmp/fruit.tsv' INTO TABLE more"]
    assert (loaded.request["fileOctets"], loaded.response["affected"]) == (18, 2)
    assert by_query["CALL twice()"].response["rows"] == 4
    (denied,) = play(Session, refused)
    assert denied.response["error"]["code"] == 1045


def test_executions_have_their_text_and_parameters():
    prepared, _ = connections("mysql-connector.pcap", PORT)
    executed = [
        e for e in play(Session, prepared) if e.request["command"] == "COM_STMT_EXECUTE"
    ]  # fmt: skip
    assert [e.request["parameters"] for e in executed] == [
        [1, 7.5], [2, 7.5], ["kiwi", None], ["2026-01-02 03:04:05", "0xff00"],
    ]  # fmt: skip
    assert executed[1].request["query"] == "SELECT name FROM fruit WHERE id = ? AND price < ?"
    assert [e.response.get("rows") for e in executed] == [1, 1, None, 1]


@pytest.mark.parametrize("name", NAMES)
def test_no_password_is_told(name):
    for said in connections(f"{name}.pcap", PORT):
        assert "sesame" not in repr(play(Session, said))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("known", [True, False])
def test_a_gap_loses_what_it_touches(name, known):
    for said in connections(f"{name}.pcap", PORT):
        whole = without_login(play(Session, said))
        for lost, found in losing_each(Session, said, known):
            if name == "mysql-compressed" and lost < 4:
                continue  # without its login nobody knows that it is compressed
            seen = without_login(found)
            assert sum(each not in seen for each in whole) <= 6, lost  # those of a statement
            wrong = [each for each in seen if each.error_type is None and each not in whole]
            commands = {each.request["command"] for each in wrong}
            # A text, or the greeting, is lost.
            assert all("STMT" in each or each == "Login" for each in commands), lost


# ---- packets


@pytest.mark.parametrize(
    "result",
    [
        packets(b"\2", column("a"), column("b"), eof(), b"\1x\1y", b"\1x\xfb", eof()),
        packets(b"\2", column("a"), column("b"), b"\1x\1y", b"\1x\xfb", ok(head=b"\xfe")),
    ],
    ids=["with EOF packets", "without"],
)
def test_a_query_and_its_answer(result):
    (seen,) = begun(query("SELECT a, b FROM t"), result)
    assert seen.request == {
        "command": "COM_QUERY", "query": "SELECT a, b FROM t", "user": "ada", "database": "shop",
    }  # fmt: skip
    assert seen.response == {"status": "OK", "rows": 2, "columns": ["a", "b"]}
    assert (seen.start_ns, seen.end_ns) == (40, 50)
    assert (seen.request_size, seen.response_size) == (23, len(result))


def test_a_login_is_told_without_its_password():
    (seen,) = talk(GREETING, login(secret=b"do not tell"), packet(2, error(1045, "28000", "no")))
    assert (seen.request["user"], seen.request["database"]) == ("ada", "shop")
    assert seen.response["serverVersion"] == "8.0.30"
    assert seen.response["error"] == {"code": 1045, "sqlState": "28000", "message": "no"}
    assert "do not tell" not in repr(seen)


def test_another_plugin_is_asked_for():
    switch = packet(2, b"\xfecaching_sha2_password\0salt")
    seen = talk(GREETING, login(), switch, packet(3, b"secret"), packet(4, b"\1\3"), b"",
                packet(5, ok()))  # fmt: skip
    assert seen[0].response["plugin"] == "caching_sha2_password"
    assert "secret" not in repr(seen)


def test_encryption_is_not_looked_into():
    request = packet(
        1, (CAPABILITIES | wire.TLS).to_bytes(4, "little") + b"\0\0\0\1\x21" + bytes(23)
    )
    (seen,) = talk(GREETING, request + b"\x16\x03\x01\x02\0")
    assert seen.request["command"] == "SSLRequest"
    assert seen.response["serverVersion"] == "8.0.30"


def test_several_results_of_one_query():
    first = (b"\1", column("a"), eof(), b"\1x", eof(2 | 8))
    answer = packets(*first, ok(affected=3, status=2 | 8), error(1146, "42S02", "no such table"))
    (seen,) = begun(query("SELECT 1; UPDATE t SET a = 1; SELECT * FROM n"), answer)
    assert seen.response["status"] == "ERROR"
    assert (seen.response["rows"], seen.response["affected"]) == (1, 3)
    assert seen.response["error"]["code"] == 1146


def test_a_cursor_is_fetched_in_parts():
    prepare = packets(b"\0\5\0\0\0\1\0\0\0\0\0\0", column("a"), eof())
    seen = begun(
        packet(0, b"\x16SELECT a FROM t"), prepare,
        packet(0, b"\x17\5\0\0\0\1\1\0\0\0"), packets(b"\1", column("a"), eof(2 | 0x40)),
        packet(0, b"\x1c\5\0\0\0\2\0\0\0"), packets(b"\0\0\1x", b"\0\0\1y", eof(2 | 0x80)),
    )  # fmt: skip
    assert [e.request["command"][4:] for e in seen] == [
        "STMT_PREPARE", "STMT_EXECUTE", "STMT_FETCH",
    ]  # fmt: skip
    assert {e.request["query"] for e in seen} == {"SELECT a FROM t"}
    assert [e.response.get("rows") for e in seen] == [None, 0, 2]


@pytest.mark.parametrize("codec", [zlib.compress, zstandard.compress])
def test_a_compressed_connection(codec):
    def frame(number, octets, compress):
        body = codec(octets) if compress else octets
        plain = len(octets) if compress else 0
        sizes = len(body).to_bytes(3, "little"), plain.to_bytes(3, "little")
        return sizes[0] + bytes([number]) + sizes[1] + body

    answer = packets(b"\1", column("a"), eof(), *[b"\1x"] * 300, eof())
    asked, said = frame(0, query("SELECT 1"), False), frame(1, answer, True)
    (seen,) = begun(asked, said, capabilities=CAPABILITIES | wire.COMPRESS)
    assert seen.response["rows"] == 300
    assert (seen.request_size, seen.response_size) == (len(asked), len(said))
    (seen,) = play(Session, [(CLIENT, asked, 1), (SERVER, said, 2)])  # begun in the middle
    assert seen.response["rows"] == 300


def test_the_middle_of_a_connection():
    session = Session()
    session.gap(CLIENT, 0, 1)
    session.receive(CLIENT, memoryview(b"d of a text" + query("SELECT 1")), 2)
    session.receive(SERVER, memoryview(packets(b"\1", column("a"), eof(), b"\1x", eof())), 3)
    (seen,) = session.exchanges
    assert (seen.request["query"], seen.response["rows"]) == ("SELECT 1", 1)


def test_a_server_that_takes_nobody():
    (seen,) = talk(packet(0, b"\xff\x10\x04Too many connections"))
    assert seen.request is None
    assert seen.response["error"] == {"code": 1040, "message": "Too many connections"}


@pytest.mark.parametrize(
    ("side", "octets"),
    [
        (CLIENT, b"GET / HTTP/1.1\r\n\r\n"),
        (SERVER, b"SSH-2.0-OpenSSH_9.2\r\n"),
        (SERVER, packet(0, b"\x0b8.0.30\0")),
        (CLIENT, packet(0, b"\x77")),
    ],
)
def test_other_protocols_are_not_understood(side, octets):
    session = Session()
    try:
        for _ in range(4):
            session.receive(side, memoryview(octets), 1)
    except ProtocolError:
        pass
    assert not session.understood


def test_a_capture_that_begins_with_a_request():
    session = Session()
    session.gap(CLIENT, 0, 1)
    session.receive(CLIENT, memoryview(query("SELECT 1")), 1)
    session.gap(SERVER, 0, 2)
    session.receive(SERVER, memoryview(packets(b"\1", column("a"), eof(), b"\1x", eof())), 2)
    (seen,) = session.exchanges
    assert (seen.response["rows"], seen.error_type) == (1, None)


def test_a_capture_that_ends_within_the_first_answer():
    session = Session()
    session.gap(SERVER, 0, 1)
    session.receive(CLIENT, memoryview(query("SELECT 1")), 1)
    session.receive(SERVER, memoryview(packets(b"\1", column("a"), eof(), b"\1x")), 2)
    assert session.understood
    session.close(3)
    (seen,) = session.exchanges
    assert (seen.response["rows"], seen.error_type) == (1, "pair-not-found")


# ---- limits


def test_a_long_query_is_cut_and_its_octets_are_not_kept():
    session = Session()
    text = query("SELECT '" + "x" * (1 << 20) + "'")
    most = 0
    for at in range(0, len(text), 1000):
        session.receive(CLIENT, memoryview(text[at : at + 1000]), at)
        most = max(most, session.buffered)
    session.receive(SERVER, memoryview(packet(1, ok())), 9)
    (seen,) = session.exchanges
    assert most <= wire.MOST_KEPT + 1000
    assert seen.request["bodyTruncated"]
    assert (len(seen.request["query"]), seen.request_size) == (wire.MOST_KEPT - 5, len(text))


def test_a_row_of_several_packets_is_one_row():
    row = packet(4, b"\xfe" + bytes(wire.FULL - 1)) + packet(5, b"rest")
    answer = packets(b"\1", column("a"), eof()) + row + packets(b"\1x", eof(), first=6)
    (seen,) = begun(query("SELECT a FROM t"), answer)
    assert seen.response["rows"] == 2


def test_what_waits_is_bounded():
    session = Session()
    for _ in range(MOST_WAITING + 100):
        session.receive(CLIENT, memoryview(query("SELECT 1")), 1)
    assert len(session.exchanges) == 100
    assert session.exchanges[0].error_type == "pair-not-found"


def test_statements_are_bounded():
    said = [(CLIENT, query("SELECT 1"), 1), (SERVER, packet(1, ok()), 1)]
    session = Session()
    for number in range(3000):
        said = packet(0, b"\x16SELECT" + b"x" * 999)
        session.receive(CLIENT, memoryview(said), 1)
        answer = packet(1, b"\0" + number.to_bytes(4, "little") + bytes(7))
        session.receive(SERVER, memoryview(answer), 1)
    assert session.buffered <= statements.MOST_OCTETS


def test_decompression_is_bounded():
    bomb = zlib.compress(bytes(wire.FULL))
    frame = len(bomb).to_bytes(3, "little") + b"\1" + wire.FULL.to_bytes(3, "little") + bomb
    octets, size = decompress(Message(frame, len(frame), 0, False))
    assert (len(octets), size) == (MOST_PLAIN, wire.FULL)


def test_the_octets_of_what_waits_are_bounded():
    session = Session()
    for _ in range(100):
        session.receive(CLIENT, memoryview(query("SELECT '" + "x" * 60_000 + "'")), 1)
    assert session.buffered <= MOST_WAITING_OCTETS + wire.MOST_KEPT
