import pytest

import kfl


def kinds(text, macros=()):
    return [(text[each.start : each.end], each.kind) for each in kfl.tokens(text, macros)]


def test_each_piece_has_its_kind():
    assert kinds('record("a") and not http && x.y == r"b" # c') == [
        ("record", "function"),
        ("(", "operator"),
        ('"a"', "string"),
        (")", "operator"),
        ("and", "keyword"),
        ("not", "keyword"),
        ("http", "word"),
        ("&&", "operator"),
        ("x", "unknown"),
        (".", "operator"),
        ("y", "unknown"),
        ("==", "operator"),
        ('r"b"', "regex"),
        ("# c", "comment"),
    ]


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("request.path", "field"),
        ("request.anything.below", "field"),
        ("request.headers.Host", "field"),
        ("status_code", "field"),
        ("src.pod.metadata.name", "field"),
        ("response..in", "field"),
        ("request.in", "field"),  # a key, not the operator
        ("src.nope", "unknown"),
        ("nope", "unknown"),
        ("dns.nope", "unknown"),
        ("request.path.nope(", "unknown"),
        ("request.path.size(", "function"),
        ("nope(", "unknown"),
        ("tls", "word"),
        ("3.14", "number"),
        ("nil", "keyword"),
        ("or", "keyword"),
        ("@", "unknown"),
        ("'not closed", "string"),
        ('r"not closed', "regex"),
    ],
)
def test_kind_of(text, kind):
    found = [each for each in kinds(text) if each[0] not in ("(", "..")]
    assert found[-1][1] == kind


def test_words_of_operators():
    assert kinds("mine", ["mine"]) == [("mine", "word")]
    assert kinds("mine") == [("mine", "unknown")]


def test_goes_on_after_what_is_wrong():
    assert ("dns", "word") in kinds("http = = ) and and dns")
    assert kinds('"a\nhttp')[-1] == ("http", "word")
    assert kinds("") == kinds(" \n\t") == []
