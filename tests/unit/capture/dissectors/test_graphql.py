"""GraphQL in the bodies of HTTP: what is asked, and what went wrong."""

import json
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.capture.dissectors.graphql import (
    MOST_DOCUMENT,
    MOST_ERRORS,
    Operation,
    errors_of_response,
    operations_of_request,
    scan,
)

JSON = "application/json; charset=utf-8"


def asked(document, **more):
    return operations_of_request(JSON, json.dumps({"query": document, **more}))


@pytest.mark.parametrize(
    ("document", "operation"),
    [
        ("{ user { name } }", Operation("query", "", ("user",))),
        ("query { user }", Operation("query", "", ("user",))),
        ("query Cart { cart { id } shop }", Operation("query", "Cart", ("cart", "shop"))),
        ("mutation P($a: Int! = 3) { pay(a: $a) { ok } }", Operation("mutation", "P", ("pay",))),
        ("subscription S @live { n { id } }", Operation("subscription", "S", ("n",))),
        ("{ me: user(id: 7) { name }, b: user }", Operation("query", "", ("user", "user"))),
        ("# mutation X { y }\nquery Q{a}", Operation("query", "Q", ("a",))),
        ('query Q { a(t: "} { \\" ", m: """ " } """) b }', Operation("query", "Q", ("a", "b"))),
        ("fragment F on U { n } query Q { user { ...F } }", Operation("query", "Q", ("user",))),
        ("query Q { a @skip(if: $b) ... on U { n } c }", Operation("query", "Q", ("a", "c"))),
        ("query query { query }", Operation("query", "query", ("query",))),
        ("\ufeff,,{,a,}", Operation("query", "", ("a",))),
    ],
)  # fmt: skip
def test_the_operation_is_told(document, operation):
    assert asked(document) == (operation,)


def test_of_several_operations_the_one_that_is_to_run_is_told():
    document = "query A { a } mutation B { b } query C { c }"
    assert asked(document, operationName="B") == (Operation("mutation", "B", ("b",)),)
    assert asked(document) == (Operation("query", "A", ("a",)),)


@pytest.mark.parametrize(
    "document",
    ["", "shoes", "query shoes", "SELECT * FROM users", "{", "{}", "{ a", "{ a )", "} a {",
     "query Q { a } shoes", "{ a } }", "name:tea AND {price}", "..."],
)  # fmt: skip
def test_other_queries_are_not_taken(document):
    assert asked(document) == ()


@pytest.mark.parametrize(
    "body",
    ["", "{", "[]", "null", "7", '{"query": {"match": {"name": "tea"}}}', '{"query": 7}',
     '{"quest": "{ a }"}', '[{"query": "{ a }"}, 7]', "[" * 100000],
)  # fmt: skip
def test_other_bodies_are_not_taken(body):
    assert operations_of_request(JSON, body) == ()


def test_a_batch_has_several():
    body = json.dumps([{"query": "query A { a }"}, {"query": "mutation B { b }"}])
    assert [each.name for each in operations_of_request(JSON, body)] == ["A", "B"]


def test_a_persisted_query_has_a_name_and_no_text():
    body = json.dumps({"operationName": "Cart", "extensions": {"persistedQuery": {"version": 1}}})
    assert operations_of_request(JSON, body) == (Operation("", "Cart"),)


def test_a_get_has_it_in_its_query_string():
    found = operations_of_request("", "", {"query": "query Q { a }", "operationName": "Q"})
    assert found == (Operation("query", "Q", ("a",)),)
    assert operations_of_request("", "", {"query": "shoes"}) == ()
    assert operations_of_request("", "", {"query": ["{ a }", "{ b }"]}) == ()


def test_a_body_may_be_the_document():
    found = operations_of_request("application/graphql", "query Q { a }")
    assert found == (Operation("query", "Q", ("a",)),)
    assert operations_of_request("text/plain", "query Q { a }") == ()


def test_a_body_that_was_cut_tells_what_it_has():
    body = json.dumps({"operationName": "Long", "query": 'query Long { a(b: "c") d' + " e" * 99})
    assert operations_of_request(JSON, body[:100]) == ()
    (found,) = operations_of_request(JSON, body[:100], is_cut=True)
    assert (found.kind, found.name, found.fields[:3]) == ("query", "Long", ("a", "d", "e"))
    assert operations_of_request(JSON, body[:30], is_cut=True) == ()


def test_a_long_document_is_read_up_to_a_limit():
    (found,) = asked("query Long { a b " + "c " * MOST_DOCUMENT + "}")
    assert (found.name, found.fields[:2]) == ("Long", ("a", "b"))


def test_errors_of_a_response_are_told():
    error = {"message": "no stock", "path": ["cart", 0, "tea"], "extensions": {"code": "GONE"}}
    body = json.dumps({"data": {"cart": None}, "errors": [error, {"message": "late"}]})
    found = errors_of_response(JSON, body)
    assert (found.count, found.has_data) == (2, True)
    assert found.errors[0] == {"message": "no stock", "path": "cart.0.tea", "code": "GONE"}
    many = json.dumps({"data": None, "errors": [{"message": "x" * 9999}] * 50})
    found = errors_of_response("application/graphql-response+json", many)
    assert (found.count, len(found.errors), found.has_data) == (50, MOST_ERRORS, False)
    assert len(found.errors[0]["message"]) < 9999


@pytest.mark.parametrize(
    "body", ['{"data": {"a": 1}}', '{"errors": []}', '{"errors": "many"}', "", "{", "7", "[7]"]
)
def test_a_response_without_errors_has_none(body):
    assert errors_of_response(JSON, body) is None


@given(st.text(alphabet='{}()[]"\\#\n\ufeff query:@$!|&.a1,'))
def test_any_text_is_scanned(document):
    found = scan(document)
    assert found is None or all(each.fields for each in found)


def test_long_hostile_texts_take_linear_time():
    for piece in ("{", '"', '"""', "\\", "#", "a:", "query ", "...", '"""\\', "(((", "é"):
        scan(piece * (MOST_DOCUMENT // len(piece)))
        operations_of_request(JSON, '{"query": "' + piece * MOST_DOCUMENT)


def test_damaged_documents_raise_nothing():
    rng = random.Random(7)
    document = (
        'query Q($a: [Int!]! = [1]) { a: b(c: "d", e: {f: $a}) @g { ...H } } fragment H on I { j }'
    )
    for _ in range(3000):
        damaged = list(document)
        for _ in range(rng.randrange(1, 4)):
            damaged[rng.randrange(len(damaged))] = chr(rng.randrange(32, 300))
        asked("".join(damaged))
