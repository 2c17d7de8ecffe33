import base64

import pytest

from kfl.decode import MAX_XML_DEPTH, decode
from kfl.values import MISSING


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ('{"a": [1, 2.5, null]}', {"a": [1, 2.5, None]}),
        (base64.b64encode(b'{"a": 1}').decode(), {"a": 1}),
        ("1234", 1234),  # base64 as well, of something else
        ("9007199254740993", 9007199254740993),
        ("{", MISSING),
        ("", MISSING),
        ("[" * 100_000, MISSING),
        ("\ud800", MISSING),
        (None, MISSING),
        ({"a": 1}, MISSING),
        (5, MISSING),
    ],
)
def test_json(text, wanted):
    assert decode("json", text) == wanted


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("<a>x</a>", {"a": "x"}),
        ("<?xml version='1.0'?><a><b>1</b><b>2</b></a>", {"a": {"b": ["1", "2"]}}),
        ("<a k='v'> t <b/></a>", {"a": {"-k": "v", "#text": "t", "b": ""}}),
        ("<s:a xmlns:s='u'><s:b>&amp;</s:b></s:a>", {"a": {"-s": "u", "b": "&"}}),
        (base64.b64encode(b"<a>x</a>").decode(), {"a": "x"}),
        ("<a>", MISSING),
        ("text", MISSING),
        ('<!DOCTYPE a [<!ENTITY x "y">]><a>&x;</a>', MISSING),
        ('<!DOCTYPE a SYSTEM "file:///etc/passwd"><a/>', MISSING),
        ("<a>" * (MAX_XML_DEPTH + 5) + "</a>" * (MAX_XML_DEPTH + 5), MISSING),
    ],
)
def test_xml(text, wanted):
    assert decode("xml", text) == wanted
