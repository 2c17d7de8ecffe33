"""Initial packets of QUIC: the examples of RFC 9001, and packets sealed with its keys."""

import random

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st

from services.capture.dissectors.conversation import ProtocolError
from services.capture.dissectors.signatures import CLIENT, SERVER
from services.capture.dissectors.tls import quickeys
from services.capture.dissectors.tls.quic import MOST_DATAGRAMS, MOST_WAITING, Quic
from tests.unit.capture.dissectors.playback import play, survives
from tests.unit.capture.dissectors.tls import hellos

ID = bytes.fromhex("8394c8f03e515708")
# RFC 9001, A.1: key, iv, hp of client and server
KEYS = [
    [bytes.fromhex(text) for text in texts]
    for texts in (
        (
            "1f369613dd76d5467730efcbe3b1a22d",
            "fa044b2f42a3fd3b46fb255c",
            "9f50449e04a0e810283a1e9933adedd2",
        ),
        (
            "cf3a5331653c364c88f0f379b6067e37",
            "0ac1493ca1905853b0bba03e",
            "c206b8d9b9f0f37644430b490eeaa314",
        ),
    )
]
# RFC 9001, A.3: with an ACK and a ServerHello
SERVER_INITIAL = bytes.fromhex(
    "cf000000010008f067a5502a4262b5004075c0d95a482cd0991cd25b0aac406a5816b6394100f37a1c69797554780b"
    "b38cc5a99f5ede4cf73c3ec2493a1839b3dbcba3f6ea46c5b7684df3548e7ddeb9c3bf9c73cc3f3bded74b562bfb19"
    "fb84022f8ef4cdd93795d77d06edbb7aaf2f58891850abbdca3d20398c276456cbc42158407dd074ee"
)
HELLO = hellos.client_hello(
    [0x1301],
    [hellos.sni("shop.example"), hellos.alpn("h3"), (43, b"\x02\x03\x04"), (21, bytes(900))],
)


def varint(number: int) -> bytes:
    return (0x40000000 * 2 | number).to_bytes(4, "big")


def crypto(offset: int, octets: bytes) -> bytes:
    return b"\x06" + varint(offset) + varint(len(octets)) + octets


def initial(side: int, frames: bytes, number: int = 0) -> bytes:
    """A packet of the connection that began with ID."""
    key, iv, hp = KEYS[side]
    frames = frames.ljust(32, b"\0")
    peer = ID if side == CLIENT else b""
    head = b"\xc3\0\0\0\1" + bytes([len(peer)]) + peer + b"\0" + b"\0"
    head += varint(4 + len(frames) + 16)
    whole = head + number.to_bytes(4, "big")
    nonce = (int.from_bytes(iv, "big") ^ number).to_bytes(12, "big")
    sealed = AESGCM(key).encrypt(nonce, frames, whole)
    mask = Cipher(algorithms.AES(hp), modes.ECB()).encryptor().update(sealed[:16])
    hidden = bytes(a ^ b for a, b in zip(whole[-4:], mask[1:], strict=False))
    return bytes([whole[0] ^ mask[0] & 0x0F]) + whole[1:-4] + hidden + sealed


ASK = (CLIENT, initial(CLIENT, crypto(0, HELLO)))
ANSWER = (SERVER, SERVER_INITIAL)


def one(said):
    (exchange,) = play(Quic, said)
    return exchange


def test_a_handshake():
    exchange = one([ASK, ANSWER])
    assert exchange.request["sni"] == "shop.example"
    assert exchange.request["alpn"] == ["h3"]
    assert exchange.request["quicVersion"] == "1"
    assert exchange.request["ja4"].startswith("q13d0104h3_")
    assert exchange.response["version"] == "TLS 1.3"
    assert exchange.response["cipherSuite"] == "TLS_AES_128_GCM_SHA256"
    assert (exchange.request_size, exchange.response_size) == (len(ASK[1]), len(SERVER_INITIAL))
    assert exchange.error_type is None


def test_keys_of_version_2():
    # RFC 9369, A.1
    version = quickeys.VERSIONS[quickeys.VERSION_2]
    secret = bytes.fromhex("14ec9d6eb9fd7af83bf5a668bc17a7e283766aade7ecd0891f70f9ff7f4bf47b")
    assert quickeys._expand(secret, version.label + b" key", 16).hex() == (
        "8b1a0bc121284290a29e0971b5cd045d"
    )


@given(st.permutations(range(7)), st.integers(1, 300))
def test_a_hello_in_pieces_in_any_order(order, size):
    size = max(size, len(HELLO) // 7 + 1)
    pieces = [(at, HELLO[at : at + size]) for at in range(0, len(HELLO), size)]
    pieces += pieces[: 7 - len(pieces)]
    said = [
        (CLIENT, initial(CLIENT, crypto(*pieces[place % len(pieces)]), number))
        for number, place in enumerate([*order, *range(7)])
    ]
    assert one([*said, ANSWER]).request == one([ASK, ANSWER]).request


def test_a_connection_that_is_refused():
    close = b"\x1c" + varint(0x178) + varint(6) + varint(0)
    exchange = one([ASK, (SERVER, initial(SERVER, close))])
    assert exchange.error_type == "alert"
    assert exchange.error_msg.endswith("no_application_protocol (120)")


def test_packets_of_other_kinds_are_passed_over():
    short = b"\x40" + bytes(40)
    versions = b"\x80\0\0\0\0\0\0" + bytes(8)
    handshake = b"\xe0\0\0\0\1\0\0" + varint(20) + bytes(20)
    exchange = one([ASK, (SERVER, versions), (SERVER, short), (SERVER, handshake + SERVER_INITIAL)])
    assert exchange.response["version"] == "TLS 1.3"


def test_one_side_alone():
    assert one([ASK]).error_type == "pair-not-found"
    half = (CLIENT, initial(CLIENT, crypto(0, HELLO[:200])))
    exchange = one([half])
    assert exchange.request["sni"] == "shop.example"
    assert "ja4" not in exchange.request


def test_what_no_key_opens_is_refused():
    damaged = bytearray(ASK[1])
    damaged[-1] ^= 1
    with pytest.raises(ProtocolError):
        Quic().receive(CLIENT, memoryview(damaged), 1)
    with pytest.raises(ProtocolError):
        Quic().receive(SERVER, memoryview(SERVER_INITIAL), 1)


def test_frames_that_are_damaged_raise_nothing_else():
    chance = random.Random(11)
    for _ in range(1000):
        frames = bytearray(crypto(chance.randrange(3), HELLO[: chance.randrange(60)]))
        frames += bytes([chance.choice([0, 1, 2, 3, 6, 0x1C])]) + chance.randbytes(9)
        frames[chance.randrange(len(frames))] = chance.randrange(256)
        survives(Quic, [(CLIENT, initial(CLIENT, bytes(frames))), ANSWER])
        cut = ASK[1][: chance.randrange(len(ASK[1]))]
        survives(Quic, [(CLIENT, cut or b"\0")])


def test_what_waits_has_a_limit():
    conversation = Quic()
    conversation.receive(CLIENT, memoryview(initial(CLIENT, crypto(0, HELLO[:9]))), 1)
    for number in range(MOST_DATAGRAMS):
        frames = crypto(1 << 20 | number * 9000, bytes(9000))
        conversation.receive(CLIENT, memoryview(initial(CLIENT, frames, number)), 2)
        assert conversation.buffered <= MOST_WAITING + 100
    assert conversation.is_over
