"""A filter that is said to be never true matches no entry; one that is always true, every entry."""

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, given, settings

import kfl
from kfl.fields import CATALOGUE
from kfl.kinds import MIXED
from kfl.words import WORDS
from recordings import entry as entry_json
from tests.property.kfl.filters import filters, fmt, numbers, patterns, texts
from tests.property.kfl.rows import rows, table_of

pytestmark = pytest.mark.timeout(900)  # many filters, each in several ways

SETTINGS = settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))

IS_WORD = {name: kfl.compile(name).matches for name in WORDS}

TYPES = {"number": (int, float), "text": str, "bool": bool, "map": dict}

COUNTS = ("requestSize", "responseSize", "index", "headersSize", "bodySize")


def at(entry, path):
    """The value at a path without wildcards; KeyError when there is none."""
    for key in path.split("."):
        entry = entry[key] if isinstance(entry, dict) else {}[key]
    return entry


def keeps_catalogue(entry):
    """Whether an entry is as the catalogue says. Generated rows also are what nobody would make."""
    words = {name for name, matches in IS_WORD.items() if matches(entry)}
    return all(_keeps(entry, field, words) for field in CATALOGUE if field.how == "one")


def _keeps(entry, field, words):
    path = field.paths[0]
    if "*" in path or (field.guard and field.guard not in words):
        return True
    try:
        value = at(entry, path)
    except KeyError:
        return True
    if field.protocols and words.isdisjoint(field.protocols) and not field.guard:
        return False
    if value is None:
        return True
    if field.type in TYPES:
        kinds = TYPES[field.type] if MIXED.get(path, "http") in words or path not in MIXED else str
        if not isinstance(value, kinds) or (isinstance(value, bool) and field.type != "bool"):
            return False
    if path.endswith(".port"):
        return 0 <= value <= 65_535
    return not path.endswith(COUNTS) or value >= 0


# Few fields and constants, so that conditions meet; what cannot be is as likely as what can.
fields = st.sampled_from(
    [
        *("src.port", "dst.port", "response.status", "status_code", "request.method", "method"),
        *("request.path", "path", "tls", "src.name", "requestSize", "request.bodySize", "error"),
        *("request.body", "request.headers", "response.code", "redis_key", "dns_questions"),
        *("request.pathSegments", "request.headers.Host", "timestamp", "size(request.path)"),
        *("size(request.body)", "elapsedTime", "request.bodyTruncated", "amqp_method", "record"),
        *("request.key", "-status_code", "src.port + 1", "request", "response.body.json().a"),
        *("src", "protocol", "request.queryString", "src.labels", "request.cookies"),
        *("(http ? src.port : dst.port)", "map_get(request, 'key', 80)", "(tls == true)"),
    ]
)
constants = st.one_of(
    numbers,
    texts,
    patterns,
    st.sampled_from(["80", "81", "200", "-1", "70000", '"80"', '"GET"', "true", "nil", "[80, 81]"]),
)
signs = st.sampled_from(["==", "==", "!=", "<", "<=", ">", ">="])
leaves = st.one_of(
    fmt("{} {} {}", fields, signs, constants),
    fmt("{} {} {}", constants, signs, fields),
    fmt("{} in [{}, {}]", fields, constants, constants),
    fmt("{} in {}", texts, fields),
    fmt("({}).{}({})", fields, st.sampled_from(["contains", "startsWith", "matches"]), texts),
    fmt("({}).{}('')", fields, st.sampled_from(["contains", "startsWith", "endsWith"])),
    fields,
    st.sampled_from([*WORDS, "true", "false", "limit(3)", 'record("a")', 'record("b")']),
)


def joined(inner):
    return st.one_of(
        fmt("({} and {})", inner, inner),
        fmt("({} and {} and {})", inner, inner, inner),
        fmt("({} or {})", inner, inner),
        fmt("not ({})", inner),
        fmt("({} ? {} : {})", inner, inner, inner),
        fmt("({}) == {}", inner, st.sampled_from(["true", "false"])),
    )


close = st.recursive(leaves, joined, max_leaves=5)


def verdict(text):
    """True or False where a filter is said to have no other truth; None where it is not."""
    try:
        problems = kfl.check(text)
    except kfl.KflError:
        return None
    if any(problem.is_error for problem in problems):
        return None
    messages = " ".join(problem.message for problem in problems)
    for word, truth in (("never", False), ("always", True)):
        if f"he filter is {word} true" in messages:
            return truth
    return None


@SETTINGS
@given(
    st.lists(st.one_of(close, close, filters), min_size=30, max_size=30),
    st.lists(rows(), min_size=12, max_size=12),
)
def test_a_filter_with_one_truth_has_it_for_every_entry(found, made):
    entries = [entry for entry in entry_json.objects(table_of(made)) if keeps_catalogue(entry)]
    for text in found:
        truth = verdict(text)
        if truth is not None:
            matches = kfl.compile(text).matches
            for entry in entries:
                assert matches(entry) is truth, (text, entry)


@SETTINGS
@given(
    st.lists(leaves, min_size=40, max_size=40),
    st.lists(rows(), min_size=8, max_size=8),
)
def test_what_says_nothing_is_true_wherever_there_is_a_value(found, made):
    entries = [entry for entry in entry_json.objects(table_of(made)) if keeps_catalogue(entry)]
    for text in found:
        for problem in kfl.check(text):
            if problem.message.startswith("This is true of every entry that has `"):
                there = kfl.compile(problem.suggestion[len("Write ") :].partition(",")[0])
                for entry in entries:
                    assert kfl.compile(text).matches(entry) or not there.matches(entry), text


def test_enough_is_doubted_and_enough_is_asked():
    """So that the property above is about something."""
    seen = {True: 0, False: 0, None: 0, "kept": 0, "left": 0}

    @settings(max_examples=300, database=None, derandomize=True, deadline=None)
    @given(close, rows())
    def look(text, row):
        seen[verdict(text)] += 1
        (entry,) = entry_json.objects(table_of([row]))
        seen["kept" if keeps_catalogue(entry) else "left"] += 1

    look()
    assert seen[True] >= 3
    assert seen[False] >= 20
    assert seen["kept"] >= 40
