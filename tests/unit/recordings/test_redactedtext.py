import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kfl import ast
from kfl.decode import decode
from recordings.redactedtext import REDACTED, Decoded, Steps, edit, edit_json

KEYS = st.sampled_from(["a", "b", "c", "\u00e4", '"', "headers", ""])
LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.text(max_size=4)
    | st.floats(allow_nan=False, allow_infinity=False)
)
DOCUMENTS = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3)
)
STEPS = st.lists(
    st.builds(ast.Key, KEYS)
    | st.builds(ast.Index, st.integers(0, 2))
    | st.just(ast.Each())
    | st.builds(ast.Deep, KEYS),
    min_size=1,
    max_size=4,
)
LAYOUTS = st.sampled_from(
    [{}, {"indent": 2}, {"ensure_ascii": False}, {"separators": (",", ":")}, {"indent": "\t"}]
)


def hidden(value: Any, steps: Steps) -> Any:
    """What edit_json does, said about objects."""
    if not steps:
        return None if value is None else REDACTED
    step, rest = steps[0], steps[1:]
    if isinstance(step, ast.Deep) and isinstance(value, dict | list):
        pairs = value.items() if isinstance(value, dict) else enumerate(value)
        below = {key: hidden(each, steps) for key, each in pairs}
        if isinstance(value, dict) and step.name in value:
            below[step.name] = hidden(below[step.name], rest)
        return below if isinstance(value, dict) else list(below.values())
    if isinstance(value, dict) and isinstance(step, ast.Key | ast.Each):
        return {
            key: hidden(each, rest) if step in (ast.Each(), ast.Key(key)) else each
            for key, each in value.items()
        }
    if isinstance(value, list) and isinstance(step, ast.Index | ast.Each):
        return [
            hidden(each, rest) if step in (ast.Each(), ast.Index(number)) else each
            for number, each in enumerate(value)
        ]
    return value


@given(DOCUMENTS, STEPS, LAYOUTS)
def test_json_is_edited_as_its_objects_would_be(value: Any, steps: Any, layout: Any) -> None:
    text = json.dumps(value, **layout)
    found = edit_json(text, (tuple(steps),))
    expected = hidden(value, tuple(steps))
    assert json.loads(found) == expected
    if expected == value and REDACTED not in text:
        assert found == text


@pytest.mark.parametrize(
    ("text", "path", "expected"),
    [
        ('{"a":1,"a":2}', "a", '{"a":"[REDACTED]","a":"[REDACTED]"}'),
        ('{ "\\u0061" : [1] , "b":1e999}', "a", '{ "\\u0061" : "[REDACTED]" , "b":1e999}'),
        ('{"n":' + "9" * 5000 + ',"a":1}', "a", '{"n":' + "9" * 5000 + ',"a":"[REDACTED]"}'),
        ("[]", "a", "[]"),
        ('{"a":null}', "a", '{"a":null}'),
        ('{"b":"}{][,:\\"a\\":1"}', "a", '{"b":"}{][,:\\"a\\":1"}'),
        ("{", "a", '"[REDACTED]"'),
    ],
)
def test_json_keeps_what_is_around(text: str, path: str, expected: str) -> None:
    assert edit_json(text, ((ast.Key(path),),)) == expected


def test_json_that_is_nested_too_deep_is_replaced() -> None:
    for depth in (300, 900, 1020, 100_000):
        text = '{"b":' * depth + '{"a":"s3cret"}' + "}" * depth
        for steps in ((ast.Deep("a"),), (ast.Key("a"),)):
            found = edit(text, ((Decoded("json"), *steps),))
            is_read = depth <= 1020
            assert "s3cret" not in found or (is_read and steps == (ast.Key("a"),))


def in_xml(name: str, value: Any) -> str:
    """Return a tree as XML: strings, and lists of (name, tree)."""
    if isinstance(value, str):
        text = value.replace("&", "&amp;").replace("<", "&lt;").replace("]]>", "]]&gt;")
        return f"<{name}>{text}</{name}>"
    inside = "".join(in_xml(*each) for each in value)
    return f"<{name} k='1' n:k = \"<2>\">{inside}<!-- <a> --></{name}>".replace("<2>", ">2")


NAMES = st.sampled_from(["a", "b", "n:c"])
TREES = st.recursive(
    st.text(alphabet="xyz&<]> ", max_size=4),
    lambda inner: st.lists(st.tuples(NAMES, inner), max_size=3),
    max_leaves=8,
)
XML_STEPS = st.lists(
    st.builds(ast.Key, st.sampled_from(["a", "b", "c", "-k", "#text"]))
    | st.just(ast.Index(0))
    | st.just(ast.Each())
    | st.builds(ast.Deep, st.sampled_from(["a", "b", "c"])),
    min_size=1,
    max_size=4,
)


def values_at(value: Any, steps: Steps) -> list[Any]:
    """The values that a path means, as the language has it."""
    if not steps:
        return [value]
    step, rest = steps[0], steps[1:]
    found: list[Any] = []
    below = list(value.values()) if isinstance(value, dict) else value
    if not isinstance(value, dict | list):
        return found
    if isinstance(step, ast.Deep):
        for each in below:
            found += values_at(each, steps)
    if isinstance(step, ast.Key | ast.Deep) and isinstance(value, dict) and step.name in value:
        found += values_at(value[step.name], rest)
    if isinstance(step, ast.Each):
        for each in below:
            found += values_at(each, rest)
    if isinstance(step, ast.Index) and isinstance(value, list) and step.number < len(value):
        found += values_at(value[step.number], rest)
    return found


def leaves(value: Any) -> set[str]:
    if isinstance(value, str):
        return {value}
    return {leaf for each in (value if isinstance(value, list) else value.values())
            for leaf in leaves(each)}  # fmt: skip


@given(TREES, XML_STEPS)
def test_what_a_path_means_in_xml_is_gone(tree: Any, steps: Any) -> None:
    text = in_xml("a", tree).replace("<a", "<a xmlns:n='u'", 1)
    before = decode("xml", text)
    found = edit(text, ((Decoded("xml"), *steps),))
    after = decode("xml", found)
    for value in values_at(after, tuple(steps)):
        assert leaves(value) <= {REDACTED}
    if not values_at(before, tuple(steps)) and not any(
        isinstance(step, ast.Index | ast.Each) or step == ast.Key("#text") for step in steps
    ) and not has_lists(before):  # fmt: skip
        assert found == text


def has_lists(value: Any) -> bool:
    if isinstance(value, list):
        return True
    return isinstance(value, dict) and any(map(has_lists, value.values()))


@pytest.mark.parametrize(
    ("text", "path", "expected"),
    [
        ("<a><b/><c>s</c></a>", "b", "<a><b>[REDACTED]</b><c>s</c></a>"),
        ("<a><b>1</b><b>2</b></a>", "b", "<a><b>[REDACTED]</b><b>[REDACTED]</b></a>"),
        ("<a><b><![CDATA[<b>]]></b>t</a>", "b", "<a><b>[REDACTED]</b>t</a>"),
        ("<a x='>'><b\n>1</b\n></a>", "b", "<a x='>'><b>[REDACTED]</b></a>"),
        ("<!DOCTYPE a><a><b>1</b></a>", "b", REDACTED),
        ('<?xml version="1.0" encoding="cp037"?><a/>', "b", REDACTED),
        ("<a><b>1</b>", "b", REDACTED),
        ("a < b", "b", "a < b"),
    ],
)
def test_xml_keeps_what_is_around(text: str, path: str, expected: str) -> None:
    assert edit(text, ((Decoded("xml"), ast.Key("a"), ast.Key(path)),)) == expected


def test_an_xml_document_that_is_too_large_to_decode_is_replaced() -> None:
    text = f"<a>{'<c/>' * 100_001}<b>s3cret</b></a>"
    assert edit(text, ((Decoded("xml"), ast.Deep("b")),)) == REDACTED


@given(st.text(max_size=30) | st.text(alphabet="{}[]<>/=\"':,ab!-?& \\\\", max_size=30))
def test_any_text_can_be_edited(text: str) -> None:
    for kind in ("json", "xml"):
        for inside in ((), (Decoded("json"), ast.Key("a"))):
            edit(text, ((Decoded(kind), ast.Deep("a"), *inside),))
