import pytest

from kfl import Diagnostic
from services.cli import statement
from services.cli.terminal import CommandError


def test_the_caret_is_under_the_column():
    text = "http and\n  response.status === 5"
    shown = statement.show(text, Diagnostic(True, 2, 19, "unexpected `===`", "Write `==`."))
    first, second, third = shown.split("\n")
    assert first[second.index("^") :].startswith("=== 5")
    assert third == "line 2, column 19: unexpected `===` Write `==`."


def test_a_long_statement_is_cut_to_what_is_near_the_caret():
    text = "x" * 500 + "!" + "y" * 500
    first, second, _ = statement.show(text, Diagnostic(True, 1, 501, "m")).split("\n")
    assert len(first) < 120
    assert first[second.index("^")] == "!"


@pytest.mark.parametrize("column", [1, 4, 99])
def test_a_place_after_the_end_is_shown_too(column):
    assert "^" in statement.show("abc", Diagnostic(True, 1, column, "m"))
    assert "^" in statement.show("abc", Diagnostic(True, 7, column, "m"))


def test_control_characters_are_not_sent_to_the_terminal():
    shown = statement.show("a\x1b[2Jb", Diagnostic(False, 1, 3, "odd \x1b[2J\n sign"))
    assert "\x1b" not in shown
    assert shown.count("\n") == 2
    assert "warning: line 1, column 3: odd ?[2J sign" in shown


def test_a_wrong_statement_ends_the_command_with_2():
    with pytest.raises(CommandError) as caught:
        statement.compiled("http and and")
    assert caught.value.exit_code == 2
    assert "^" in str(caught.value)
    assert statement.compiled("http").matches({"protocol": {"name": "http"}})
    assert statement.errors("http", "") == ""


def test_what_a_service_tells_is_shown_where_it_is():
    word = "In the word `odd`, line 1, column 3: `nope` is not a word."
    told = f"line 1, column 1: {word} line 2, column 3: `htps` is no word. Did you mean https?"
    shown = statement.errors("odd and\n  htps", told)
    assert [line.strip() for line in shown.split("\n")] == [
        "odd and",
        "^",
        f"line 1, column 1: {word}",
        "htps",
        "^",
        "line 2, column 3: `htps` is no word. Did you mean https?",
    ]
    assert statement.errors("nope", "There is no recording of that name.") == ""


def test_words_of_operators_are_known_here_too(tmp_path):
    file = tmp_path / "words.json"
    file.write_text('{"https": "tls and http"}')
    for given in (str(file), file.read_text()):
        entry = {"protocol": {"name": "http"}, "tls": True}
        assert statement.compiled("https", given).matches(entry)
    with pytest.raises(CommandError, match="--macros: The word `dns` exists already") as caught:
        statement.compiled("https", '{"dns": "udp"}')
    assert caught.value.exit_code == 2
