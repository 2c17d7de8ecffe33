"""Parameters and bodies as requests; what is wrong is a sentence."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

import orjson
import pytest
from google.protobuf.message import Message
from hypothesis import given
from hypothesis import strategies as st
from recorder.v1 import jobs_pb2, query_pb2

from services.gateway.asking import MAX_DEPTH, MAX_PARAMETERS, read, read_timeout
from services.gateway.problems import Problem, ProblemError
from services.gateway.routes import ROUTES, Route


def route(rpc: str, method: str) -> Route:
    (found,) = [each for each in ROUTES if each.rpc.name == rpc and each.method == method]
    return found


def ask(rpc: str, *parameters: tuple[str, str]) -> Message:
    return read(route(rpc, "GET"), {}, urlencode(parameters).encode(), b"")


def test_a_time_range_and_a_limit() -> None:
    asked = ask(
        "Query",
        ("kfl", 'record("a") and path == "/ä b"'),
        ("startTime", "2026-01-31T08:45:00.5Z"),
        ("limit", "7"),
        ("follow", "true"),
    )
    assert isinstance(asked, query_pb2.QueryRequest)
    assert asked.kfl == 'record("a") and path == "/ä b"'
    assert asked.start_time.ToJsonString() == "2026-01-31T08:45:00.500Z"
    assert (asked.limit, asked.follow) == (7, True)


@pytest.mark.parametrize("names", [("kfl", "bucketMs"), ("question.kfl", "bucket_ms")])
def test_what_is_in_a_question_may_be_said_without_the_word(names: tuple[str, str]) -> None:
    asked = ask("Histogram", (names[0], "http"), (names[1], "1000"))
    question = query_pb2.Question(kfl="http")
    assert asked == query_pb2.HistogramRequest(question=question, bucket_ms=1000)


def test_both_sides_of_a_difference() -> None:
    asked = ask("Diff", ("before.kfl", "a"), ("after.question.kfl", "b"), ("after.run", "2"))
    assert isinstance(asked, query_pb2.DiffRequest)
    assert asked.before.question.kfl == "a"
    assert (asked.after.question.kfl, asked.after.run) == ("b", 2)


def test_a_list_is_a_parameter_that_is_there_twice() -> None:
    asked = ask("ListJobs", ("states", "JOB_STATE_FAILED"), ("states", "JOB_STATE_STOPPED"))
    assert isinstance(asked, jobs_pb2.ListJobsRequest)
    assert list(asked.states) == [jobs_pb2.JOB_STATE_FAILED, jobs_pb2.JOB_STATE_STOPPED]


def test_a_body_is_the_job_or_the_rest_of_the_request() -> None:
    body = b'{"name": "a", "labels": {"x": "y"}, "durationMinutes": 5}'
    made = read(route("CreateJob", "POST"), {}, b"", body)
    assert isinstance(made, jobs_pb2.CreateJobRequest)
    assert (made.spec.name, made.spec.labels["x"], made.spec.duration_minutes) == ("a", "y", 5)
    extended = read(route("ExtendJob", "POST"), {"name": "a"}, b"", b'{"duration_minutes": 9}')
    assert extended == jobs_pb2.ExtendJobRequest(name="a", duration_minutes=9)
    assert read(route("StopJob", "POST"), {"name": "a"}, b"", b"").name == "a"  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("rpc", "query", "sentence"),
    [
        ("Query", "limit=x", "limit: Write a whole number."),
        ("Query", "limit=-1", "limit: Value out of range: -1."),
        ("Query", "limit=1&limit=2", "limit: it is there twice."),
        ("Query", "follow=1", "follow: write true or false."),
        ("Query", "startTime=noon", "startTime: Write a time as in 2026-01-31T08:45:00Z."),
        ("Query", "colour=red", "colour: there is no such parameter."),
        ("Query", "startTime.seconds=1", "startTime.seconds: there is no such parameter."),
        ("Query", "kfl=%ff", "The parameters are not UTF-8."),
        ("Histogram", "question=1", "question: there is no such parameter."),
        ("Query", "&".join(["kfl=a"] * (MAX_PARAMETERS + 1)), "There are more than 64 parameters."),
        ("Query", "format=PNG", "format: Write one of ENTRY_FORMAT_UNSPECIFIED, "
         "ENTRY_FORMAT_OBJECT, ENTRY_FORMAT_JSON, ENTRY_FORMAT_ARROW, ENTRY_FORMAT_COUNT."),
    ],
)  # fmt: skip
def test_what_is_wrong_with_parameters(rpc: str, query: str, sentence: str) -> None:
    with pytest.raises(ProblemError) as caught:
        read(route(rpc, "GET"), {}, query.encode(), b"")
    assert caught.value.problem.detail == sentence
    assert caught.value.problem.status == 400


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ("[]", "The body is to be a JSON object."),
        ("{", "The body is not JSON"),
        ('{"question": {"colour": 1}}', "question.colour: There is no such field."),
        ('{"question": {"kfl": 1}}', "question.kfl: Write text."),
        ('{"limit": 1.5}', "limit: Write a whole number."),
        ('{"question": ' * 40 + "1" + "}" * 40, "question"),
    ],
)
def test_what_is_wrong_with_a_body(body: str, sentence: str) -> None:
    with pytest.raises(ProblemError) as caught:
        read(route("Top", "POST"), {}, b"", body.encode())
    assert caught.value.problem.detail.startswith(sentence)


def test_a_body_has_no_parameters_beside_it_and_no_name_of_its_own() -> None:
    with pytest.raises(ProblemError, match="no parameters"):
        read(route("Top", "POST"), {}, b"kfl=a", b"{}")
    with pytest.raises(ProblemError, match="in the path already"):
        read(route("StopJob", "POST"), {"name": "a"}, b"", b'{"name": "b"}')


def problem_of(found: Route, query: bytes, body: bytes) -> Problem | None:
    """What is wrong with a request; None when nothing is."""
    try:
        read(found, dict.fromkeys(found.parameters, "x"), query, body)
    except ProblemError as error:
        return error.problem
    return None


json = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
names = st.sampled_from(
    ["kfl", "question", "startTime", "limit", "before", "after", "labels", "states", "run", "name"]
)


@given(st.sampled_from(ROUTES), st.dictionaries(names, json, max_size=4))
def test_any_body_is_a_request_or_a_sentence(found: Route, body: dict[str, Any]) -> None:
    problem = problem_of(found, b"", orjson.dumps(body) if found.body else b"")
    assert problem is None or (problem.status == 400 and problem.detail.endswith("."))


@given(st.sampled_from([r for r in ROUTES if not r.body]), st.lists(st.tuples(names, st.text())))
def test_any_parameters_are_a_request_or_a_sentence(
    found: Route, given: list[tuple[str, str]]
) -> None:
    problem = problem_of(found, urlencode(given).encode(), b"")
    assert problem is None or problem.status == 400


def test_nothing_deep_is_read() -> None:
    deep = b'{"labels":' * (MAX_DEPTH + 1) + b"1" + b"}" * (MAX_DEPTH + 1)
    with pytest.raises(ProblemError):
        read(route("CreateJob", "POST"), {}, b"", deep)


@pytest.mark.parametrize(
    ("text", "seconds"), [("", None), ("10S", 10), ("500m", 0.5), ("1H", 3600)]
)
def test_a_timeout(text: str, seconds: float | None) -> None:
    assert read_timeout(text) == seconds


@pytest.mark.parametrize("text", ["10", "S", "0S", "-1S", "1e9S", "9" * 40 + "S", "soon"])
def test_what_is_no_timeout(text: str) -> None:
    with pytest.raises(ProblemError, match="Grpc-Timeout"):
        read_timeout(text)
