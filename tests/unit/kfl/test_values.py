import pytest

from kfl.values import MISSING, Many, arithmetic, equal, number, ordered, text_of, truth


@pytest.mark.parametrize("value", [None, False, "", 0, -1, -0.5, 0.0, [], (), MISSING, Many()])
def test_false_values(value):
    assert truth(value) is False


@pytest.mark.parametrize("value", [True, "a", "false", 1, 0.1, [0], {}, Many([0, 1])])
def test_true_values(value):
    assert truth(value) is True


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("80", 80),
        ("-3", -3),
        ("007", 7),
        ("1.50", 1.5),
        ("1e3", 1000.0),
        ("18446744073709551615", 2**64 - 1),
    ],
)
def test_texts_that_are_numbers(text, wanted):
    assert number(text) == wanted
    assert type(number(text)) is type(wanted)


@pytest.mark.parametrize(
    "text", ["", " 1", "1 ", "+1", "0x10", "1_0", "inf", "nan", "1.", ".5", "٣", "1" * 500]
)
def test_texts_that_are_not(text):
    assert number(text) is None


def test_integers_are_exact_to_64_bits():
    assert equal(9007199254740993, "9007199254740993")
    assert not equal(9007199254740993, "9007199254740992")
    assert ordered(">", "18446744073709551615", 18446744073709551614)
    # Beyond, they are doubles, as for readers of JSON.
    assert equal(10**30, 10**30 + 1)


def test_true_is_not_one():
    assert not equal(True, 1)
    assert not equal("true", True)
    assert text_of(True) == "true"


def test_lists_compare_by_any_and_with_lists_as_wholes():
    assert equal([1, 2], 2)
    assert equal(2, (1, 2))
    assert equal([1, "2"], ("1", 2))
    assert not equal([1, 2], (2, 1))
    assert not equal([[1]], 1)
    assert equal(Many([[1]]), 1)
    assert ordered(">", [1, 5], 4)
    assert not ordered(">", [1, 5], (1,))


@pytest.mark.parametrize(
    ("operator", "left", "right", "wanted"),
    [
        ("/", 7, 2, 3),
        ("/", -7, 2, -3),
        ("%", -7, 2, -1),
        ("%", 7, -2, 1),
        ("/", 7.0, 2, 3.5),
        ("+", "1", 2, 3),
        ("+", "a", "b", "ab"),
        ("+", [1], (2,), [1, 2]),
        ("*", 2**63, 2, MISSING),
        ("-", 0, 2**63 + 1, MISSING),
        ("/", 1, 0, MISSING),
        ("/", 1.0, 0, MISSING),
        ("%", 1.5, 1, MISSING),
        ("*", 1e308, 10, MISSING),
        ("-", "a", 1, MISSING),
        ("+", None, 1, MISSING),
        ("+", True, 1, MISSING),
        ("+", MISSING, 1, MISSING),
    ],
)
def test_arithmetic(operator, left, right, wanted):
    assert arithmetic(operator, left, right) == wanted
