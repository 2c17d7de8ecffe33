import re

import pytest

from services.runtime import macros


def test_words_come_as_json_as_a_file_or_as_they_are(tmp_path):
    words = {"https": "tls and (http or http2)", "failed": "https and status_code >= 500"}
    file = tmp_path / "words.json"
    file.write_text(macros.written(words))
    assert macros.read(macros.written(words)) == words
    assert macros.read(f"  {macros.written(words)}") == words
    assert macros.read(str(file)) == macros.read(file) == words
    assert macros.read(words) == words
    assert macros.read("") == {}
    assert macros.read("{}") == {}


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        ('{"a": "dns"', "not JSON"),
        ('{"a": "dns", "a": "tls"}', "The word 'a' is given twice."),
        ('{"a": 1}', "The word 'a' stands for 1; it must stand for a text."),
        ('{"a": {"b": "dns"}}', "must stand for a text"),
        ("[" * 100_000, "nested too deeply"),
        ("x" * 100_000, "File name too long"),
        ("a\0b", "embedded null byte"),
        ('{"a":' * 100_000, "nested too deeply"),
        (["dns"], "not list"),
        (7, "not int"),
        ("/no/such/file", "Cannot read the words of KFL in '/no/such/file': No such file"),
        ('{"a": "a"}', "made from itself"),
        ('{"dns": "udp"}', "exists already"),
        ('{"a": "nope"}', "`nope` is not a word"),
    ],
)
def test_what_is_wrong_is_a_sentence(value, sentence):
    with pytest.raises(ValueError, match=re.escape(sentence)):
        macros.read(value)


def test_a_file_that_is_wrong_is_named(tmp_path):
    file = tmp_path / "words.json"
    for content in (b"\xff\xfe", b"{", b"x" * (macros.MAX_FILE_BYTES + 1)):
        file.write_bytes(content)
        with pytest.raises(ValueError, match="words"):
            macros.read(str(file))
