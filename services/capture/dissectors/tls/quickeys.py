"""Initial packets of QUIC, whose keys everybody can make (RFC 9001, 5; RFC 9369, 3)."""

import functools
import hashlib
import hmac
from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

SAMPLE_AT = 4  # octets from the packet number's begin to the sample (5.4.2)
SAMPLE = 16
KEY, IV = 16, 12  # octets
LONGEST_NUMBER = 4  # octets of a packet number
MOST_KNOWN = 64  # connections whose keys are remembered

VERSION_1, VERSION_2 = 0x00000001, 0x6B3343CF


@dataclass(frozen=True, slots=True)
class Version:
    """What differs between versions."""

    name: str
    initial: int
    """Of the types of long headers."""
    salt: bytes
    label: bytes


VERSIONS = {
    VERSION_1: Version("1", 0, bytes.fromhex("38762cf7f55934b34d179ae6a4c80cadccbb7f0a"), b"quic"),
    VERSION_2: Version(
        "2", 1, bytes.fromhex("0dede3def700a6db819381be6e269dcbf9bd2ed9"), b"quicv2"
    ),
}


def _expand(secret: bytes, label: bytes, length: int) -> bytes:
    """HKDF-Expand-Label (RFC 8446, 7.1) for no more than one block of SHA-256."""
    full = b"tls13 " + label
    info = length.to_bytes(2, "big") + bytes([len(full)]) + full + b"\0"
    return hmac.digest(secret, info + b"\1", hashlib.sha256)[:length]


class Keys:
    """Those of one side for its Initial packets."""

    def __init__(self, version: Version, secret: bytes, side: bytes) -> None:
        mine = _expand(secret, side, 32)
        self._aead = AESGCM(_expand(mine, version.label + b" key", KEY))
        self._iv = int.from_bytes(_expand(mine, version.label + b" iv", IV), "big")
        # One block alone is masked: what ECB shows of several does not matter.
        cipher = Cipher(algorithms.AES(_expand(mine, version.label + b" hp", KEY)), modes.ECB())  # noqa: S305
        self._mask = cipher.encryptor()

    def open(self, packet: bytes, number_at: int) -> bytes | None:
        """Return the frames of a packet, whose number lies at `number_at`; None if the keys are
        others.
        """
        sample = packet[number_at + SAMPLE_AT :][:SAMPLE]
        if len(sample) < SAMPLE:
            return None
        mask = self._mask.update(sample)
        first = packet[0] ^ (mask[0] & 0x0F)
        size = (first & 0x03) + 1
        number = int.from_bytes(packet[number_at : number_at + size], "big") ^ int.from_bytes(
            mask[1 : 1 + size], "big"
        )
        begin = number_at + size
        head = bytes([first]) + packet[1:number_at] + number.to_bytes(size, "big")
        # Numbers of Initial packets are small: what is sent of them is all.
        nonce = (self._iv ^ number).to_bytes(IV, "big")
        try:
            return self._aead.decrypt(nonce, packet[begin:], head)
        except InvalidTag:
            return None


@functools.lru_cache(MOST_KNOWN)
def keys(version: int, destination: bytes) -> tuple[Keys, Keys]:
    """Return the keys of client and server, from the Destination Connection ID that the client
    began with.
    """
    chosen = VERSIONS[version]
    secret = hmac.digest(chosen.salt, destination, hashlib.sha256)
    return Keys(chosen, secret, b"client in"), Keys(chosen, secret, b"server in")
