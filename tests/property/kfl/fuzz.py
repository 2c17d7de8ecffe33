"""Random texts for the language: bytes, tokens, mutated cases, and what is meant to hurt.

python -m tests.property.kfl.fuzz 1000000 [seed]

Each text gives a filter or a KflError, within bounded time; `test_fuzz` does the same with fewer.
"""

import random
import resource
import sys
import time
from pathlib import Path

import yaml

import kfl
from kfl.fields import NAMES
from kfl.functions import FUNCTIONS, METHODS
from kfl.parse import MAX_LENGTH
from kfl.words import WORDS

GOLDEN = Path(__file__).parents[2] / "golden" / "kfl"
CASES = [
    text
    for name in ("cases.yaml", "language.yaml")
    for group in yaml.safe_load((GOLDEN / name).read_text("utf-8"))
    for key in ("matches", "differs")
    for text in group[key].splitlines()
]

FOREIGN = [
    *("tcp.port == 80", "host 10.0.0.1 and port 80", "ip.addr == 10.0.0.0/8", "not arp"),
    *("tcp[13] & 2 != 0", "src net 10.0.0.0/8 and tcp dst port 443", 'frame contains "x"'),
    *("http.response.code == 500 && ip.src == 10.1.2.3", "tcp.port in {80, 443..445}"),
    *('http matches "(?=x)"', "udp portrange 1-2", "port (80 or not 443)", "dns.qry.type == 28"),
]

TOKENS = [
    *("and", "or", "not", "in", "true", "false", "nil", "null", "&&", "||", "!", "==", "!="),
    *("<", "<=", ">", ">=", "+", "-", "*", "/", "%", "?", ":", "(", ")", "[", "]", ",", "."),
    *("..", ".*", "[0]", '["a"]', "()", ".a", "..a", "=", "&", "|", "~", "{", "}", ";", "#", "//"),
    *(
        "\n",
        "\t",
        '"a"',
        "'a'",
        'r"a"',
        'r"("',
        "r'[a-'",
        '"',
        "'",
        'r"',
        "\\",
        "\\u00e9",
        "1",
        "0",
    ),
    *(
        "1.5",
        "1e9",
        "1e999",
        "9" * 40,
        "-1",
        "0x1",
        "5xx",
        "10ms",
        "AND",
        "LIKE",
        "IS NULL",
        "\x00",
    ),
    *("\ud800", "\U0001f600", "é", "\u00a0", "\u201c", "\u2265", "GET", "10.0.0.1", "mine", "x"),
    *("port", "host", "net", "tcp.port", "contains", "http.host", "/api/x", "::1", "BETWEEN 1"),
    *NAMES,
    *WORDS,
    *(f"{name}(" for name in FUNCTIONS),
    *(f".{name}(" for name in METHODS),
]

REGEXES = [
    *(
        "(a*)*b",
        "(a|a)*$",
        "(x+x+)+y",
        "(.*){20}",
        "a{1000}",
        "(a{1000}){1000}",
        "[^",
        "(?=a)",
        "\\1",
    ),
    *(
        "(?i)(?s).*",
        "\\p{L}*",
        "\\C",
        "(" * 300,
        "a|" * 400,
        "[a-z]{1,1000}{1,10}",
        "\\Q",
        "^" * 99,
    ),
    *("(?P<n>a)", "\\x{10FFFF}", "[[:alpha:]]+", "x*" * 200, "\ud83d", ".{0,999}.{0,999}"),
]

ENTRIES = [
    {},
    {
        "protocol": {"name": "http", "version": "1.1", "abbr": "HTTP"},
        "transport": "tcp",
        "tls": False,
        "src": {"ip": "10.0.0.1", "port": 1, "name": "a"},
        "request": {"method": "GET", "path": "a" * 200, "headers": {"Host": "x"}, "body": "e30="},
        "response": {"status": 500, "body": '{"a": [1, {"b": null}]}'},
        "timestamp": 1763853120123,
        "error": None,
    },
    {"protocol": None, "request": ["x"], "response": "x", "src": 1, "tls": "x", "timestamp": []},
]

MACROS = {"mine": "http and response.status == 500"}

MAX_SECONDS = 10.0
"""Processor time of one text. Most take a thousandth; the longest chains allowed, a second."""


MAX_REMARK = 20_000
"""Characters of an error or warning: a translated filter is as long as the filter, about."""


def text_of(chance: random.Random) -> str:
    """One text."""
    pick = chance.random()
    if pick < 0.15:
        return _bytes(chance)
    if pick < 0.5:
        space = chance.choice(["", " ", " "])
        return space.join(chance.choices(TOKENS, k=chance.randint(1, 14)))
    if pick < 0.99:
        return _mutated(chance)
    return _hurting(chance)


def _bytes(chance: random.Random) -> str:
    octets = chance.randbytes(chance.randint(0, 60))
    form = chance.choice(["latin-1", "utf-8", "utf-16-le", "ascii"])
    return octets.decode(form, chance.choice(["replace", "ignore", "surrogatepass"][:2]))


def _mutated(chance: random.Random) -> str:
    text = chance.choice(FOREIGN if chance.random() < 0.15 else CASES)
    for _ in range(chance.choice([0, 1, 1, 1, 2, 3])):
        at = chance.randint(0, len(text))
        end = min(len(text), at + chance.randint(0, 6))
        match chance.randint(0, 6):
            case 0:
                text = text[:at] + text[end:]
            case 1:
                text = text[:at] + chance.choice(TOKENS) + text[at:]
            case 2:
                text = text[:at] + chance.choice(TOKENS) + text[end:]
            case 3:
                text = text[:at] + text[at:end] * chance.randint(2, 5) + text[end:]
            case 4:
                other = chance.choice(CASES)
                text = text[:at] + other[chance.randint(0, len(other)) :]
            case 5:
                text = (
                    text[:at]
                    + chr(chance.choice([0, 34, 39, 92, 0xD800, 0x1F600, 0xA0]))
                    + text[at:]
                )
            case 6:
                joint = chance.choice(["and", "or", "==", "?", "+"])
                text = f"({text}) {joint} ({chance.choice(CASES)})"
    return text


def _hurting(chance: random.Random) -> str:
    many = chance.choice([3, 30, 90, 101, 199, 201, 1_000, 5_000, 20_000])
    part = chance.choice(TOKENS)
    pattern = chance.choice(REGEXES)
    return chance.choice(
        [
            "(" * many + "http" + ")" * many,
            "[" * many + "1" + "]" * many,
            "not " * many + "http",
            "-" * many + "1",
            "- " * many + "requestSize",
            "http ? " * many + "dns" + " : tls" * many,
            " and ".join(["http", "dns", "src.port == 1"] * (many // 3)),
            " or ".join(f'src.ip != "{number}"' for number in range(many)),
            " + ".join(["requestSize"] * many) + " > 1",
            "request" + chance.choice([".a", ".*", "..a", "[0]", '["x"]']) * many + " == 1",
            "response.body" + ".json()" * many,
            f"request.path in [{', '.join(map(str, range(many)))}]",
            "request.path == [" + "[1]," * many + "1]",
            "size(" * many + "request.path" + ")" * many,
            'map_get(request.a, "b", ' * many + "1" + ")" * many,
            f"requestSize == {'9' * many}",
            f"requestSize == 1e{'9' * min(many, 400)}",
            f"requestSize == 0.{'1' * many}",
            f'request.path == "{chr(92) * many}"',
            f'request.path == "{chr(92)}"' * many,
            f'request.path == "{"é" * many}"',
            f"request.path == r'{pattern}'",
            f'request.path.matches("{pattern}")'
            + f' or request.path == r"{pattern}"' * (many % 40),
            "mine and " * many + "mine",
            "'" * many,
            '"' * many,
            "#" * many + "\n",
            (part + " ") * many,
            part * many,
            "tcp.port == 80 or " * many + "udp",
            "port 80 or " * many + "udp",
            "(" * many + "tcp.port == 80" + ")" * many,
            "not " * many + "arp",
            f"timestamp > years({'9' * min(many, 300)})",
            f'elapsedTime > duration("{"1h" * many}")',
            f'redact("{"a." * many}b")',
            f'redact("{chr(92)}"request")',
            f'record("{"a" * many}")',
            "\n" * many + "http and",
            "a" * chance.choice([MAX_LENGTH, MAX_LENGTH + 1]),
        ]
    )


def ask(text: str) -> bool:
    """Whether a text is a filter; AssertionError, or whatever is wrong, where it is neither."""
    begin = time.process_time()
    found: kfl.Filter | kfl.KflError
    try:
        found = kfl.compile(text, MACROS)
    except kfl.KflError as error:
        found = error
    if isinstance(found, kfl.Filter):
        remarks = found.warnings
        assert all(found.matches(entry) in (True, False) for entry in ENTRIES)
    else:
        remarks = kfl.check(text, MACROS)
        assert found.diagnostic() in remarks
    for remark in remarks:
        assert remark.message.endswith((".", "?")), remark
        assert remark.suggestion, remark
        assert min(remark.line, remark.column) >= 1, remark
        assert len(str(remark)) < MAX_REMARK, remark
    took = time.process_time() - begin
    assert took < MAX_SECONDS, f"{took:.1f} s"
    return isinstance(found, kfl.Filter)


def main(count: int, seed: int) -> None:
    """Ask `count` texts; ends with an error at the first that is wrong."""
    chance = random.Random(seed)
    filters, slowest, slowest_text = 0, 0.0, ""
    begin = time.perf_counter()
    for number in range(count):
        text = text_of(chance)
        before = time.process_time()
        try:
            filters += ask(text)
        except BaseException as error:
            error.add_note(f"seed {seed}, text {number}: {text[:300]!r} ({len(text)} characters)")
            raise
        took = time.process_time() - before
        if took > slowest:
            slowest, slowest_text = took, text
        if number % 100_000 == 99_999:
            print(f"{number + 1} texts, {filters} filters", flush=True)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(
        f"{count} texts, {filters} of them filters, in {time.perf_counter() - begin:.0f} s; "
        f"at most {memory} MB; slowest {slowest:.2f} s: {slowest_text[:60]!r}"
    )


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 1)
