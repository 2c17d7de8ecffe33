"""Fingerprints, by the examples of their own descriptions."""

from services.capture.dissectors.tls import fingerprints

SUITES = [
    0x0A0A, 0x1301, 0x1302, 0x1303, 0xC02B, 0xC02F, 0xC02C, 0xC030, 0xCCA9, 0xCCA8, 0xC013,
    0xC014, 0x009C, 0x009D, 0x002F, 0x0035,
]  # fmt: skip
EXTENSIONS = [
    0x1A1A, 0x001B, 0x0000, 0x0033, 0x0010, 0x4469, 0x0017, 0x002D, 0x000D, 0x0005, 0x0023,
    0x0012, 0x002B, 0xFF01, 0x000B, 0x000A, 0x0015,
]  # fmt: skip
SIGNATURES = [0x0403, 0x0804, 0x0401, 0x0503, 0x0805, 0x0501, 0x0806, 0x0601]


def chrome(**other):
    hello = {
        "transport": "t", "versions": [0x7A7A, 0x0304, 0x0303], "suites": SUITES,
        "extensions": EXTENSIONS, "signatures": SIGNATURES, "alpn": b"h2",
    }  # fmt: skip
    return fingerprints.ja4(**(hello | other))


def test_ja4_of_its_description():
    # technical_details/JA4.md of FoxIO's ja4
    assert chrome() == "t13d1516h2_8daaf6152771_e5627efa2ab1"


def test_ja4_does_not_mind_the_order_of_suites_and_extensions():
    assert chrome(suites=SUITES[::-1], extensions=EXTENSIONS[::-1]) == chrome()
    assert chrome(signatures=SIGNATURES[::-1]) != chrome()


def test_ja4_of_hellos_that_lack_something():
    assert chrome(transport="q")[0] == "q"
    assert chrome(alpn=b"")[8:10] == "00"
    assert chrome(alpn=b"\xab\xcd")[8:10] == "ad"
    assert chrome(alpn=b"h")[8:10] == "hh"
    assert chrome(extensions=[1])[3] == "i"
    assert chrome(versions=[])[1:3] == "00"
    assert chrome(suites=[], extensions=[], signatures=[]) == (
        "t13i0000h2_000000000000_000000000000"
    )
    assert chrome(suites=range(256, 512))[4:6] == "99"


def test_ja3_of_its_description():
    # README.md of salesforce/ja3
    suites = [47, 53, 5, 10, 49161, 49162, 49171, 49172, 50, 56, 19, 4]
    found = fingerprints.ja3(769, suites, [0, 10, 11], [23, 24, 25], [0])
    assert found == "ada70206e40642a3e4461f35503241d5"
    assert fingerprints.ja3(769, [4, 5, 10, 9, 100, 98, 3, 6, 19, 18, 99], [], [], []) == (
        "de350869b8c85de67a350c8d186f11e6"
    )


def test_ja3s_of_its_description():
    # README.md of salesforce/ja3
    assert fingerprints.ja3s(769, 47, [65281, 0, 11, 35, 5, 16]) == (
        "836ce314215654b5b1f85f97c73e506f"
    )
