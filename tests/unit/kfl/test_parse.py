import pytest

from kfl import KflError, ast
from kfl.parse import MAX_DEPTH, MAX_LENGTH, parse
from kfl.show import show


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("a || b && c", "a or (b and c)"),
        ("(a || b) && c", "(a or b) and c"),
        ("!a", "not a"),
        ("! !a", "not not a"),
        ("a == b != c", "a == b != c"),
        ("a - (b - c)", "a - (b - c)"),
        ("(a - b) - c", "a - b - c"),
        ("a + b * c", "a + b * c"),
        ("(a + b) * c", "(a + b) * c"),
        ("a ? b : c ? d : e", "a ? b : c ? d : e"),
        ("(a ? b : c) ? d : e", "(a ? b : c) ? d : e"),
        ("- - x", "- -x"),
        ("1 - -3", "1 - -3"),
        ("-(3)", "-3"),
        ("x['a b'].c[\"d\"]", 'x["a b"].c.d'),
        ("x.*..name[0]", "x.*..name[0]"),
        ("x.in.or.not.true", "x.in.or.not.true"),
        ("r'say \"hi\"'", "r'say \"hi\"'"),
        (r'r"\d\""', r'r"\d\""'),
        ("nil == null", "nil == nil"),
        ("f( 1 ,[ 2 ], )".replace(", )", ")"), "f(1, [2])"),
        ("a # comment ) (\n and b // more", "a and b"),
        ('"http://x" == a', '"http://x" == a'),
        ("order == 1 or inner", "order == 1 or inner"),
        ("1e3 + 1.50", "1000.0 + 1.5"),
        ("(3).a", "(3).a"),
        ("", "true"),
    ],
)
def test_reads_both_dialects_and_writes_one(text, same):
    assert show(parse(text).tree) == same


def test_escapes_stand_for_characters():
    tree = parse(r'"\" \' \\ \n \r \t \u00e9 \ud83d\ude00"').tree
    assert tree == ast.Literal("\" ' \\ \n \r \t é 😀")


@pytest.mark.parametrize(
    ("text", "line", "column", "message"),
    [
        ("http and", 1, 9, "ends too early"),
        ("http\nand and dns", 2, 5, "condition is needed"),
        ("a = 1", 1, 3, "`=` is not an operator"),
        ("a & b", 1, 3, "`&` is not an operator"),
        ("http AND dns", 1, 6, "not a keyword"),
        ('a == "open', 1, 6, "does not end on this line"),
        ("a == 1 b", 1, 8, "`b` is not expected here"),
        (r'a == "\q"', 1, 6, "is not an escape"),
        (r'a == "\ud800"', 1, 6, "half a character"),
        ("a == \ud800", 1, 6, "not valid Unicode"),
        ("a[99999999999]", 1, 3, "too large"),
        ("a == 1e999", 1, 6, "too large"),
        ("a == " + "9" * 400, 1, 6, "too large"),
        ("(" * 300 + "a" + ")" * 300, 1, 201, "brackets are open"),
        ("(a", 1, 1, "ends too early"),
        ("a[-1]", 1, 3, "not a place in a list"),
    ],
)
def test_says_what_is_wrong_and_where(text, line, column, message):
    with pytest.raises(KflError) as caught:
        parse(text)
    assert message in caught.value.message
    assert (caught.value.line, caught.value.column) == (line, column)


def test_length_and_depth_are_limited():
    with pytest.raises(KflError, match="at most 16384 are allowed"):
        parse("a" * (MAX_LENGTH + 1))
    with pytest.raises(KflError, match="levels deep"):
        parse("not " * MAX_DEPTH + "a")
    with pytest.raises(KflError, match="levels deep"):
        parse(" + ".join("a" * (MAX_DEPTH + 5)))


def test_a_long_chain_is_not_deep():
    text = " or ".join(["http"] * 2000)
    assert len(parse(text).tree.operands) == 2000


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("a and b or c", 1),
        ("a or b and c or d and e", 2),
        ("(a and b) or c", 0),
        ("a and (b or c)", 0),
        ("not a == b", 1),
        ("!(a == b)", 0),
        ("(not a) == b", 0),
    ],
)
def test_warns_of_what_reads_two_ways(text, count):
    warnings = parse(text).warnings
    assert len(warnings) == count
    assert not any(warning.is_error for warning in warnings)
