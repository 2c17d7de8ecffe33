import pytest
from hypothesis import given
from hypothesis import strategies as st

from recordings import names


@pytest.mark.parametrize("name", ["a", "0", "checkout-500s", "a_b", "a" * 63])
def test_good_names_are_returned(name):
    assert names.check(name) == name


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("", "is empty"),
        ("a" * 64, "it has 64 characters"),
        ("../etc", "'.' at character 1"),
        ("a/b", "'/' at character 2"),
        ("a\n", r"'\n' at character 2"),
        ("Checkout", "'C' at character 1"),
        ("-a", "it begins with '-'"),
        ("é", "is not allowed"),
        ("a\x00", "is not allowed"),
        ("\u0663", "is not allowed"),
    ],
)
def test_bad_names_are_refused_with_a_reason(name, why):
    with pytest.raises(ValueError, match="recording") as caught:
        names.check(name)
    assert why in str(caught.value)
    assert "\n" not in str(caught.value)


@given(st.text(max_size=80))
def test_what_passes_is_plain(text):
    try:
        names.check(text)
    except ValueError:
        return
    assert 1 <= len(text) <= 63
    assert set(text) <= set("abcdefghijklmnopqrstuvwxyz0123456789_-")
    assert text[0] not in "_-"
