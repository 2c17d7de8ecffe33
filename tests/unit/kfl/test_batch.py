"""What filters share of a batch, and columns in the forms in which capture gives them."""

import numpy as np
import pyarrow as pa
import pytest

import kfl
from kfl.batch import Batch


def bounds(text, columns, rows, asked=None):
    masks = kfl.compile(text).bounds(columns, rows, asked)
    return tuple("".join("1" if bit else "0" for bit in mask) for mask in masks)


COLUMNS = {
    "protocol_name": "http",
    "protocol_abbr": "HTTP",
    "transport": "tcp",
    "tls": False,
    "src_name": "",
    "response_status": np.array([200, 500, -1]),
    "request_path": pa.array(["/api/a", "", None]),
    "request_headers.x-a": pa.array(["1", "", None]),
    "request_keys": frozenset({"path", "headers", "cookies"}),
}


@pytest.mark.parametrize(
    ("text", "may", "must"),
    [
        ("http", "111", "111"),
        ("dns", "000", "000"),
        ("tls", "000", "000"),
        ("src.name == 'a'", "000", "000"),
        ("src.name == ''", "111", "111"),
        ("request.path == '/api/a'", "100", "100"),
        ("request.path != '/api/a'", "010", "010"),  # a null is no empty text
        ("request.path == ''", "010", "010"),
        ("request.path.startsWith('/api')", "100", "100"),
        ("request.path.startsWith('')", "110", "110"),
        ("request.path.endsWith('a')", "100", "100"),
        ("request.path.contains('pi')", "100", "100"),
        ("request.path in ['/api/a', '']", "110", "110"),
        ("request.path.matches('^/')", "100", "100"),
        ("not (request.path == '')", "101", "101"),
        ("request.headers['X-A'] == '1'", "100", "100"),
        ("request.headers['x-a'] == 1", "100", "100"),
        ("request.headers['x-b'] == '1'", "111", "000"),  # not given
        ("request.headers['set-cookie'] == '1'", "111", "000"),
        ("request.questions[0].name == 'a'", "000", "000"),  # these requests have none
        ("request.cookies.a == '1'", "111", "000"),
        ("response.code == 'NXDOMAIN'", "111", "000"),
        ("response.status == 500", "010", "010"),
    ],
)
def test_what_columns_decide(text, may, must):
    assert bounds(text, COLUMNS, 3) == (may, must)


def late(values, asked_for):
    def make(rows):
        asked_for.append(rows.tolist())
        return pa.array([values[row] for row in rows], pa.string())

    return make


def test_bodies_are_made_for_the_rows_that_other_conditions_leave_open():
    asked_for = []
    columns = {**COLUMNS, "response_body": late(["x", "ax", None], asked_for)}
    text = "response.body.contains('x') and response.status == 500"
    assert bounds(text, columns, 3) == ("010", "010")
    assert asked_for == [[1]]
    assert bounds("response.body == 'x'", columns, 3) == ("100", "100")
    assert bounds("response.body == 'x' and response.status == 404", columns, 3)[0] == "000"
    assert asked_for == [[1], [0, 1, 2]]
    assert bounds("response.body == 'x'", columns, 3, np.array([True, False, False]))[0][0] == "1"
    assert asked_for == [[1], [0, 1, 2], [0]]


def test_filters_with_one_batch_share_what_is_made():
    asked_for = []
    batch = Batch({**COLUMNS, "response_body": late(["x", "ax", None], asked_for)}, 3)
    for text, rows in (("x", "110"), ("a", "010"), ("b", "000")):
        found = kfl.compile(f"response.body.contains('{text}')").bounds(batch, 3)
        assert "".join("1" if bit else "0" for bit in found[1]) == rows
    assert asked_for == [[0, 1, 2]]


@pytest.mark.parametrize(
    ("text", "must"),
    [
        ("dns and request.questions[0].name == 'a.example'", "100"),
        ("dns_questions == 'a.example'", "100"),
        ("request.questions.*.type == 'A'", "110"),
        ("request.opCode", "000"),
        ("request == nil", "001"),
        ("request.id == '80'", "010"),
        ("request.text == 'é'", "010"),
        ("request.text == 'a/b' or request.text == 'c'", "100"),
        ("request.path == '/'", "000"),
    ],
)
def test_a_message_that_is_json_is_read_without_the_entry(text, must):
    asked = [
        '{"questions":[{"name":"a.example","type":"A"}],"text":"a\\/b"}',
        '{"questions":[{"name":"b.example","type":"A"}],"id":8e1,"text":"\\u00e9"}',
        None,
    ]
    columns = {"protocol_name": "dns", "request_path": None, "request": late(asked, [])}
    assert bounds(text, columns, 3) == (must, must)


def test_long_texts_are_not_compared_with_each_other():
    bodies = late(["x" * 1000 + "end", "y" * 1000, "x" * 1000 + "end"], [])
    columns = {"protocol_name": "http", "response_body": bodies}
    assert bounds("response.body.contains('xend')", columns, 3) == ("101", "101")
    assert bounds("response.body.matches('^y+$')", columns, 3) == ("010", "010")
