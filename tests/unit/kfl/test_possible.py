import pytest

from kfl.parse import parse
from kfl.possible import BOTH, ONLY_FALSE, ONLY_TRUE, Possible, bare_condition, bounds_of
from kfl.resolve import resolve


def tree(text):
    return resolve(parse(text).tree, text, {}, 0).tree


@pytest.mark.parametrize(
    ("text", "truths"),
    [
        ("http", BOTH),
        ("http and grpc", BOTH),
        ("http and dns", ONLY_FALSE),
        ("not (http and dns)", ONLY_TRUE),
        ("http or not http", ONLY_TRUE),
        ("(http and dns) == false", ONLY_TRUE),
        ("(http and dns) ? true : tls", BOTH),
        ("http ? dns : false", ONLY_FALSE),
        ("src.port == 1", BOTH),
        ("src.port == 1 and src.port == 1.0", BOTH),
        ("src.port == 1 and src.port == 2", ONLY_FALSE),
        ("src.port == 1 or src.port != 1", BOTH),  # it may be missing
        ("src.port == 1 or not (src.port == 1)", ONLY_TRUE),
        ("src.labels.a == 1 and not (src.labels.a == true)", BOTH),  # 1 is not true
        ("src.port in [1, 2] and src.port in [2, 3]", BOTH),
        ("src.port in [1, 2] and src.port in [3]", ONLY_FALSE),
        ("src.port < 5 and src.port > 4", BOTH),
        ("src.port < 5 and src.port >= 5", ONLY_FALSE),
        ("src.port <= 5 and src.port >= 5", BOTH),
        ("timestamp > 9007199254740993 and timestamp < 9007199254740992", BOTH),  # too large
        ("src.name == 5 and src.name == 6", ONLY_FALSE),
        ('src.name == "5" and src.name == 5', BOTH),
        ('src.name == "5" and src.name > 6', ONLY_FALSE),
        ("not (src.port == 1) and not (src.port == 2)", BOTH),
        ("src.port > nil", ONLY_FALSE),
        ("src.labels.a > true", ONLY_FALSE),
        ('src.labels.a == 1 and src.labels.a == "2"', BOTH),  # a list can equal both
        ("1 + 1 == 2", ONLY_TRUE),
        ("1 < 0", ONLY_FALSE),
    ],
)
def test_the_truths_of_a_condition(text, truths):
    node = tree(text)
    assert Possible(node).truths(node) == truths


def test_a_condition_on_one_value_is_told_with_the_constant_on_either_side():
    left, right = bare_condition(tree("src.port < 5")), bare_condition(tree("5 > src.port"))
    assert left is not None
    assert right is not None
    assert left.condition == right.condition
    assert bounds_of(left) == bounds_of(right) == ((float("-inf"), True), (5, False))
    assert left.test(4)
    assert not left.test(5)


@pytest.mark.parametrize("text", ["http", "src.port == dst.port", "http or dns", "1 == 1"])
def test_what_is_no_condition_on_one_value(text):
    assert bare_condition(tree(text)) is None
