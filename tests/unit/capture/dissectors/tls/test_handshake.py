"""Handshakes, as RFC 8446 and RFC 5246 have them, and what is told of each."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.capture.dissectors.conversation import ProtocolError
from services.capture.dissectors.signatures import CLIENT, SERVER
from services.capture.dissectors.tls.hello import RETRY_RANDOM
from services.capture.dissectors.tls.wire import LONGEST_MESSAGE
from tests.unit.capture.dissectors.playback import play, play_with_hole, survives
from tests.unit.capture.dissectors.tls import hellos
from tests.unit.capture.dissectors.tls.handshake import Handshake
from tests.unit.capture.dissectors.tls.hellos import CHANGE_CIPHER_SPEC, FINISHED, record

GREASE = 0x1A1A
DER = hellos.certificate("shop.example", ["shop.example", "*.shop.example"])
HELLO = hellos.client_hello(
    [GREASE, 0x1301, 0xC02F],
    [
        (GREASE, b""),
        hellos.sni("shop.example"),
        hellos.alpn("h2", "http/1.1"),
        (10, hellos.vector(2, hellos.numbers(GREASE, 29, 23))),
        (43, hellos.vector(1, hellos.numbers(GREASE, 0x0304, 0x0303))),
    ],
)
TLS12 = hellos.server_hello(0xC02F, [hellos.alpn("h2")])
TLS13 = hellos.server_hello(0x1301, [hellos.TLS13])
SERVER_PART = TLS12 + hellos.chain(DER) + hellos.message(12, b"key") + hellos.message(14, b"")
FULL = [
    (CLIENT, record(HELLO)),
    (SERVER, record(SERVER_PART)),
    (CLIENT, record(hellos.message(16, b"key")) + CHANGE_CIPHER_SPEC + FINISHED),
    (SERVER, CHANGE_CIPHER_SPEC + FINISHED),
    (CLIENT, hellos.APPLICATION_DATA),
]
RESUMED = [
    (CLIENT, record(HELLO)),
    (SERVER, record(TLS12) + CHANGE_CIPHER_SPEC + FINISHED),
    (CLIENT, CHANGE_CIPHER_SPEC + FINISHED),
]
MODERN = [
    (CLIENT, record(HELLO)),
    (SERVER, record(TLS13) + CHANGE_CIPHER_SPEC + hellos.APPLICATION_DATA),
    (CLIENT, CHANGE_CIPHER_SPEC + hellos.APPLICATION_DATA),
]


def one(said, piece=1 << 30):
    (exchange,) = play(Handshake, said, piece)
    return exchange


def test_what_the_client_offers():
    request = one(FULL).request
    assert request["sni"] == "shop.example"
    assert request["versions"] == ["TLS 1.3", "TLS 1.2"]
    assert request["alpn"] == ["h2", "http/1.1"]
    assert request["cipherSuites"] == [
        "TLS_AES_128_GCM_SHA256",
        "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
    ]
    assert request["supportedGroups"] == ["x25519", "secp256r1"]


def test_until_tls_1_2_the_certificates_are_seen():
    exchange = one(FULL)
    response = exchange.response
    assert (response["version"], response["alpn"]) == ("TLS 1.2", "h2")
    assert response["cipherSuite"] == "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"
    assert response["certificates"] == [
        {
            "subject": "CN=shop.example",
            "issuer": "O=Example Org",
            "notBefore": "2026-01-02T03:04:05Z",
            "notAfter": "2027-01-02T03:04:05Z",
            "sans": ["shop.example", "*.shop.example"],
            "serialNumber": "1267",
        }
    ]
    assert exchange.version == "1.2"
    assert exchange.error_type is None


def test_times_and_sizes_are_those_of_the_two_parts():
    exchange = one(FULL)
    assert (exchange.start_ns, exchange.end_ns) == (1, 2)
    assert exchange.request_size == len(record(HELLO))
    assert exchange.response_size == len(record(SERVER_PART))


def test_of_tls_1_3_there_is_the_server_hello():
    exchange = one(MODERN)
    assert exchange.response["version"] == "TLS 1.3"
    assert exchange.response["cipherSuite"] == "TLS_AES_128_GCM_SHA256"
    assert exchange.response["resumed"] is False
    assert exchange.response_size == len(record(TLS13))
    assert exchange.version == "1.3"


def test_sessions_that_are_resumed():
    assert one(RESUMED).response["resumed"] is True
    by_key = hellos.server_hello(0x1301, [hellos.TLS13, (41, b"\0\0")])
    assert one([MODERN[0], (SERVER, record(by_key)), MODERN[2]]).response["resumed"] is True


def test_a_server_that_asks_for_another_hello_makes_one_exchange():
    retry = hellos.server_hello(0x1301, [hellos.TLS13], random=RETRY_RANDOM)
    said = [
        (CLIENT, record(HELLO)),
        (SERVER, record(retry) + CHANGE_CIPHER_SPEC),
        (CLIENT, CHANGE_CIPHER_SPEC + record(HELLO)),
        (SERVER, record(TLS13) + hellos.APPLICATION_DATA),
        (CLIENT, hellos.APPLICATION_DATA),
    ]
    exchange = one(said)
    assert exchange.response["helloRetryRequest"] is True
    assert exchange.response["version"] == "TLS 1.3"
    assert (exchange.start_ns, exchange.end_ns) == (1, 4)


def test_data_before_the_answer_does_not_end_the_handshake():
    early = hellos.client_hello([0x1301], [(42, b""), (43, b"\x02\x03\x04")])
    data = CHANGE_CIPHER_SPEC + hellos.APPLICATION_DATA
    exchange = one([(CLIENT, record(early) + data), (SERVER, record(TLS13))])
    assert exchange.request["earlyData"] is True
    assert exchange.response["version"] == "TLS 1.3"


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        ([FULL[0], (SERVER, hellos.alert(2, 40))], "the server ended the handshake: "),
        ([*FULL[:2], (CLIENT, hellos.alert(2, 40))], "the client ended the handshake: "),
    ],
)
def test_an_alert_is_an_error(said, sentence):
    exchange = one(said)
    assert exchange.error_type == "alert"
    assert exchange.error_msg == sentence + "handshake_failure (40)"
    told = exchange.response if "server" in sentence else exchange.request
    assert told["alert"] == "handshake_failure"


def test_a_warning_is_none():
    exchange = one([FULL[0], (SERVER, hellos.alert(1, 112) + FULL[1][1]), *FULL[2:]])
    assert exchange.response["version"] == "TLS 1.2"
    assert exchange.error_type is None


def test_certificates_of_the_client():
    mine = record(hellos.chain(DER) + hellos.message(16, b"key"))
    said = [*FULL[:2], (CLIENT, mine + CHANGE_CIPHER_SPEC + FINISHED), *FULL[3:]]
    assert one(said).request["certificates"][0]["subject"] == "CN=shop.example"


def test_a_hello_in_the_form_of_ssl_2():
    suites = b"\x01\x00\x80" + b"\x00\x00\x2f" + b"\x00\x00\x0a"
    body = b"\x01\x03\x01" + hellos.numbers(len(suites), 0, 16) + suites + bytes(16)
    hello = (0x8000 | len(body)).to_bytes(2, "big") + body
    exchange = one([(CLIENT, hello), *FULL[1:]])
    assert exchange.request["versions"] == ["TLS 1.0"]
    assert exchange.request["cipherSuites"] == [
        "TLS_RSA_WITH_AES_128_CBC_SHA",
        "TLS_RSA_WITH_3DES_EDE_CBC_SHA",
    ]
    assert exchange.request_size == len(hello)
    assert exchange.response["version"] == "TLS 1.2"
    alone = hello.replace(b"\x01\x03\x01", b"\x01\x00\x02", 1)
    exchange = one([(CLIENT, alone), (SERVER, b"\x80\x0b\x04\x00\x01")])
    assert exchange.request["versions"] == ["SSL 2.0"]
    assert exchange.response == {"version": "SSL 2.0"}


def test_a_hello_whose_lengths_go_beyond_its_end():
    octets = bytearray(record(HELLO))
    octets[octets.index(b"\0\x10\0\x0e") + 2] = 0xFF  # the length of the protocols' extension
    exchange = one([(CLIENT, bytes(octets))])
    assert exchange.error_type == "malformed"
    assert exchange.request["sni"] == "shop.example"
    assert exchange.request["cipherSuites"]


def test_one_side_alone():
    exchange = one(FULL[:1])
    assert (exchange.response, exchange.error_type) == (None, "pair-not-found")
    exchange = one([FULL[1]])
    assert (exchange.request, exchange.error_type) == (None, "pair-not-found")
    assert exchange.response["version"] == "TLS 1.2"


def test_after_the_handshake_it_is_over():
    conversation = Handshake()
    for number, (side, octets) in enumerate(FULL[:4]):
        assert not conversation.is_over
        conversation.receive(side, memoryview(octets), number)
    assert conversation.is_over
    assert len(conversation.exchanges) == 1


@given(st.sampled_from([FULL, RESUMED, MODERN]), st.integers(1, 700), st.integers(1, 700))
def test_however_it_is_cut_it_is_the_same(said, piece, size):
    recut = []
    for side, octets in said:
        while octets[5:] and octets[0] == 22 and octets != FINISHED:
            length = 5 + int.from_bytes(octets[3:5], "big")
            content = octets[5:length]
            if content[0] > 20:
                break
            recut.append((side, record(content, size=size)))
            octets = octets[length:]
        recut.append((side, octets))
    whole, cut = one(said), one(recut, piece)
    assert (cut.request, cut.response) == (whole.request, whole.response)
    assert cut.error_type is None


@pytest.mark.parametrize("where", [0, 1])
def test_of_a_hello_with_a_hole_is_told_what_came(where):
    octets = len(FULL[where][1])
    for begin in range(0, octets, 7):
        for size in (1, 50, octets):
            found = play_with_hole(Handshake, FULL, where, begin, size)
            assert len(found) <= 1
            for exchange in found:
                assert exchange.error_type is not None
                # What the hole does not touch is there.
                assert where == 0 or exchange.request["sni"] == "shop.example"


def test_a_hole_after_the_hellos_touches_nothing():
    part = FULL[2][1]
    for begin in range(len(part)):
        (exchange,) = play_with_hole(Handshake, FULL, 2, begin, 3)
        assert exchange.response["certificates"]
        assert exchange.error_type is None


def test_a_capture_that_begins_in_the_middle():
    conversation = Handshake()
    conversation.gap(CLIENT, 0, 1)
    conversation.gap(SERVER, 0, 1)
    for number, (side, octets) in enumerate(FULL):
        if not conversation.is_over:
            conversation.receive(side, memoryview(octets), number + 2)
    (exchange,) = conversation.exchanges
    assert exchange.request["sni"] == "shop.example"
    assert exchange.error_type is None


def test_a_capture_that_begins_with_the_answer():
    conversation = Handshake()
    conversation.gap(CLIENT, 0, 1)
    conversation.receive(SERVER, memoryview(FULL[1][1]), 1)
    conversation.receive(CLIENT, memoryview(b"\xa5" * 9), 2)  # the end of a record
    for side, octets in FULL[2:4]:
        conversation.receive(side, memoryview(octets), 3)
    (exchange,) = conversation.exchanges
    assert exchange.response["version"] == "TLS 1.2"
    assert exchange.error_type == "pair-not-found"


@pytest.mark.parametrize("begin", [b"GET / HTTP/1.1\r\n", b"\x16\x03\x01\xff\xff", b"\x16\x05\x01"])
def test_other_octets_are_refused(begin):
    with pytest.raises(ProtocolError):
        Handshake().receive(CLIENT, memoryview(begin + bytes(9)), 1)


def test_octets_that_are_damaged_raise_nothing_else():
    chance = random.Random(5)
    for _ in range(3000):
        said = []
        for side, octets in chance.choice([FULL, RESUMED, MODERN]):
            damaged = bytearray(octets)
            for _ in range(chance.randrange(4)):
                damaged[chance.randrange(len(damaged))] = chance.randrange(256)
            said.append((side, bytes(damaged[: chance.randrange(1, len(damaged) + 1)])))
        survives(Handshake, said)


def test_a_message_of_16_mebioctets_is_not_kept():
    conversation = Handshake()
    conversation.receive(CLIENT, memoryview(FULL[0][1]), 1)
    conversation.receive(SERVER, memoryview(record(TLS12)), 2)
    part = record(b"\x0b\xff\xff\xff" + bytes(16000))
    for _ in range(60):
        conversation.receive(SERVER, memoryview(part), 3)
        part = record(bytes(16000))
        assert conversation.buffered <= LONGEST_MESSAGE


def test_a_stream_whose_answers_are_never_seen_is_let_go():
    conversation = Handshake()
    conversation.receive(CLIENT, memoryview(FULL[0][1]), 1)
    for _ in range(70):
        conversation.receive(CLIENT, memoryview(record(bytes(16000), 23)), 2)
    assert conversation.is_over
    (exchange,) = conversation.exchanges
    assert exchange.error_type == "pair-not-found"
