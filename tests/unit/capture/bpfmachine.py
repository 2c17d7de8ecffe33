"""Runs classic BPF as the kernel does (net/core/filter.c): the tests' oracle for programs."""

import struct

from services.capture.bpf import SKF_AD_HATYPE, SKF_AD_PROTOCOL, SKF_NET_OFF

ETHERNET = 1
WORD = 0xFFFFFFFF
SIZES = {0x00: 4, 0x08: 2, 0x10: 1}


class OutsideError(Exception):
    """A load behind the end of the frame: the program ends and nothing is kept."""


def run(
    program, frame: bytes, hardware: int = ETHERNET, protocol: int = 0, network: int = 0
) -> int:
    """Octets that the program keeps.

    hardware: kind of the interface. protocol, network: what the kernel knows of the packet, its
    ethertype and where the network header is.
    """
    a = x = at = 0
    memory = [0] * 16
    try:
        while True:
            code, true, false, constant = program[at]
            at += 1
            kind = code & 0x07
            if kind == 0x06:
                return constant
            if kind == 0x05:
                operator = code & 0xF0
                if operator == 0x00:
                    at += constant
                else:
                    holds = {
                        0x10: a == constant,
                        0x20: a > constant,
                        0x30: a >= constant,
                        0x40: bool(a & constant),
                    }[operator]
                    at += true if holds else false
            elif code in (0x20, 0x28, 0x30):
                a = load(frame, constant, SIZES[code & 0x18], hardware, protocol, network)
            elif code in (0x40, 0x48, 0x50):
                where = (x + constant) & WORD
                a = load(frame, where, SIZES[code & 0x18], hardware, protocol, network)
            elif code == 0x01:
                x = constant
            elif code == 0x61:
                x = memory[constant]
            elif code == 0x02:
                memory[constant] = a
            elif code == 0x03:
                memory[constant] = x
            elif code == 0x87:
                a = x
            else:
                a = {
                    0x04: a + constant,
                    0x0C: a + x,
                    0x54: a & constant,
                    0x64: a << constant,
                }[code] & WORD
    except OutsideError:
        return 0


def load(frame: bytes, at: int, size: int, hardware: int, protocol: int, network: int) -> int:
    if at == SKF_AD_HATYPE:
        return hardware
    if at == SKF_AD_PROTOCOL:
        return protocol
    if at >= SKF_NET_OFF:
        at = at - SKF_NET_OFF + network
    octets = frame[at : at + size]
    if len(octets) < size:
        raise OutsideError
    return struct.unpack({1: "!B", 2: "!H", 4: "!I"}[size], octets)[0]
