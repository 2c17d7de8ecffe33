"""Generated filters: as texts, in which every construct of the language appears, and as trees."""

import json

import hypothesis.strategies as st

import kfl
from kfl import ast
from kfl.fields import NAMES
from kfl.slips.written import RESERVED
from kfl.words import WORDS

SELECTORS = r"""
request response request.method method status_code response.status request.path path
request.body request.pathSegments request.pathSegments[0] request.pathSegments.* request.headers
request.headers.Host request.headers["x-a"] response.headers["set-cookie"] request.headers.*
response.headers["SET-COOKIE"][0] request.cookies request.cookies.b request.cookies.* request.*
response.cookies.b request.queryString.a request.query.b request.queryString query_string.a[0]
request..name response..a request..A request..HOST request.key request.key.* request.key..name
request.questions.*.name request.payload.a.b request.body.json().a request.body.json().a.b.*
request.body.xml().a.c response.body.json() response.body.xml()..c request.value.json().*
src.ip dst.ip src.port dst.port src.name src.pod src.pod.namespace src.service.metadata.name
src.labels src.labels.app src.labels["x~y"] src.* src..name src node.name node protocol.name
proto.abbr protocol timestamp startTime elapsedTime elapsed_time requestSize responseSize id
index stream transport tls error error.type error.msg record namespaces pods dns_questions
dns_answers dns_request redis_key amqp_method dns_total_size flow_local_bps flow_state
request.bodyEncoding response.bodyTruncated request["odd\"k"] request.key["q\""]
request.key["*"] request.key["0"] request.key[0] request.key.a.*..name request.questions.*.*
request.key.*["q\""] request.key.*[0] request.url.a request.headers..name request.headers..host
request.queryString..a http_version request.status response.answers.*.ttl
""".split()  # noqa: SIM905, a list would be a page long

TEXTS = [
    *("a", "b", "GET", "/api/v1", "x=1", "80", "80.0", "-3", "é", "", "A", "tls", "1e3", "0"),
    *("007", "true", "nil", "18446744073709551615", "9007199254740993", " 1", "1_0", "0x10"),
    *("٣", "b\nc", "Host", "😀", "1e400", "-0"),
]

NUMBERS = [
    *(0, 1, -1, 80, 200, 500, 2**53 + 1, 2**53, 2**63, 2**64 - 1, -(2**63), 10**30),
    *(0.0, 80.0, 1.5, -2.5, 1e20, 1e-7, 9007199254740992.0),
]

texts = st.sampled_from(TEXTS).map(json.dumps)
numbers = st.sampled_from([repr(number) for number in NUMBERS])
words = st.sampled_from(["true", "false", "nil", "null"])

pieces = st.sampled_from([".", "a", "[0-9]", r"\d", r"\.", "é", "x*", "(?i)A", "(a|b)", "^", "$"])
patterns = st.one_of(
    st.sampled_from(['r"^a"', 'r"[0-9]+"', 'r"."', 'r"e"', 'r"^$"', r'r"\."']),
    st.lists(pieces, max_size=4).map(lambda found: f'r"{"".join(found)}"'),
)
scalars = st.one_of(texts, numbers, words)


def listed(items):
    return st.lists(items, max_size=3).map(lambda found: f"[{', '.join(found)}]")


def fmt(form, *parts):
    return st.tuples(*parts).map(lambda found: form.format(*found))


constants = st.one_of(scalars, patterns, listed(st.one_of(scalars, patterns)))
plain = st.one_of(scalars, listed(st.one_of(scalars, listed(scalars))))
selectors = st.one_of(
    st.sampled_from(SELECTORS), st.sampled_from(SELECTORS), st.sampled_from(sorted(NAMES))
)
word_tests = st.one_of(
    st.sampled_from(sorted(WORDS)),
    st.sampled_from(
        ["limit(3)", 'record("a")', 'record("b")', 'redact("request.body", "request.query.a")']
    ),
)
offsets = st.sampled_from(["seconds", "minutes", "hours", "days", "weeks", "months", "years"])
times = st.one_of(
    fmt("{}({})", offsets, st.sampled_from(["-1", "-500", "0", "3"])),
    st.sampled_from(
        [
            *("now()", 'timestamp("2026-03-14T22:00:00Z")', 'timestamp("1970-01-01T00:00:00.5Z")'),
            *('datetime("10/19/2021, 6:29:02 PM")', 'datetime("1/1/2001, 12:00:00.123 AM")'),
            *('now() - duration("1h")', 'timestamp("2026-03-14T22:00:00+02:00")'),
        ]
    ),
)
durations = st.sampled_from(
    [f'duration("{text}")' for text in ("5m", "1ms", "500us", "-1s", "0s", "1.5ms", "1h30m")]
)


def deeper_values(inner):
    condition = fmt("{} == {}", inner, constants)
    return st.one_of(
        fmt("size({})", inner),
        inner.filter(lambda text: text[-1] not in "0123456789").map(lambda t: f"({t}).size()"),
        fmt("({} {} {})", inner, st.sampled_from("+-*/%"), st.one_of(inner, numbers)),
        fmt("-({})", inner),
        fmt("({} ? {} : {})", condition, inner, st.one_of(inner, scalars)),
        fmt("({} ? {} : {}).{}", condition, inner, inner, st.sampled_from(["a", "*", ".name"])),
        fmt(
            "map_get({}, {}, {})", inner, st.sampled_from(['"a"', '"HOST"', "request.path"]), inner
        ),
        fmt('map_get({}, "a", {})', inner, scalars),
        fmt("({}).json().{}", inner, st.sampled_from(["a", "*", "a.b.*", ".a", "a.b[1]"])),
        fmt("({}).xml().{}", inner, st.sampled_from(["a", "*", "a.c", ".c", 'a["-b"]'])),
        fmt("[{}, {}]", inner, scalars),
        fmt("({})", condition),
    )


values = st.recursive(selectors, deeper_values, max_leaves=3)

orders = st.sampled_from(["<", "<=", ">", ">="])
equalities = st.sampled_from(["==", "!="])
any_comparison = st.one_of(orders, equalities)

comparisons = st.one_of(
    values,
    word_tests,
    fmt("{} {} {}", values, equalities, constants),
    fmt("{} {} {}", values, orders, plain),
    fmt("{} {} {}", constants, equalities, values),
    fmt("{} {} {}", values, any_comparison, values),
    fmt("{} {} {}", st.sampled_from(["timestamp", "startTime"]), any_comparison, times),
    fmt("timestamp - {} {} {}", times, orders, durations),
    fmt("{} {} {}", st.sampled_from(["elapsedTime", "elapsed_time"]), any_comparison, durations),
    fmt("{} in {}", values, listed(st.one_of(scalars, patterns))),
    fmt("{} in {}", values, listed(values)),
    fmt("{} in {}", plain, values),
    fmt("{} in {}", values, values),
    fmt("{}.{}({})", values, st.sampled_from(["startsWith", "endsWith", "contains"]), texts),
    fmt("{}.contains({})", values, values),
    fmt("{}.matches({})", values, st.sampled_from(['"^a"', '"[0-9]"', '""', 'r"a."'])),
)


def deeper_conditions(inner):
    return st.one_of(
        fmt("({} and {})", inner, inner),
        fmt("({} or {})", inner, inner),
        fmt("({} && {} || {})", inner, inner, inner),
        fmt("not ({})", inner),
        fmt("!({})", inner),
        fmt("({} ? {} : {})", inner, inner, inner),
        fmt("({}) == {}", inner, st.sampled_from(["true", "false"])),
    )


filters = st.recursive(comparisons, deeper_conditions, max_leaves=4)


def compiled(text):
    """The filter, or None for what check refuses, such as a constant division by zero."""
    try:
        return kfl.compile(text)
    except kfl.KflError:
        return None


# ------------------------------------------------------------------------------ trees

idents = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,6}", fullmatch=True)
free = idents.filter(lambda word: word not in RESERVED)
literals = st.builds(
    ast.Literal,
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(10**40), 10**40),
        st.floats(allow_nan=False, allow_infinity=False),
        st.text(st.characters(exclude_categories=["Cs"]), max_size=6),
    ),
)
regexes = st.builds(
    ast.Regex, st.sampled_from(["a", r"\"", r"\d\\", "'", "", '[^"]'.replace('"', "'")])
)
steps = st.one_of(
    st.builds(ast.Key, st.one_of(idents, st.text(st.characters(exclude_categories=["Cs"])))),
    st.builds(ast.Index, st.integers(0, 2**31 - 1)),
    st.just(ast.Each()),
    st.builds(ast.Deep, idents),
)


def deeper_trees(inner):
    arguments = st.lists(inner, max_size=3).map(tuple)
    both_sides = st.sampled_from(["==", "!=", "<", "<=", ">", ">=", "in", "+", "-", "*", "/", "%"])
    operands = st.lists(inner, min_size=2, max_size=3).map(tuple)
    return st.one_of(
        st.builds(ast.ListOf, arguments),
        st.builds(ast.Path, inner, st.lists(steps, min_size=1, max_size=3).map(tuple)),
        st.builds(ast.Call, st.none(), free, arguments),
        st.builds(ast.Call, inner, idents, arguments),
        st.builds(ast.Unary, st.sampled_from(["not", "-"]), inner),
        st.builds(ast.Binary, both_sides, inner, inner),
        st.builds(ast.Logic, st.sampled_from(["and", "or"]), operands),
        st.builds(ast.Choice, inner, inner, inner),
    )


trees = st.recursive(
    st.one_of(literals, regexes, st.builds(ast.Name, free)), deeper_trees, max_leaves=12
)
"""Trees that no text need have given: parsing may bring them into the form of their text."""
