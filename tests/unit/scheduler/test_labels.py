"""Labels and selectors mean what kubectl means by them."""

import pytest

from services.scheduler.labels import check, selector


@pytest.mark.parametrize(
    "labels", [{}, {"a": ""}, {"example.com/a.b_c-d": "V1.0"}, {"a" * 63: "b" * 63}]
)
def test_labels_that_kubernetes_takes(labels):
    check(labels)


@pytest.mark.parametrize(
    "labels",
    [
        *(
            {key: ""}
            for key in ("", "/a", "a/", "a/b/c", "-a", "a-", "a b", "ä", "A.com/b", "a" * 64)
        ),
        {f"{'a.' * 127}/b": ""},
        *({"a": value} for value in ("-", "a b", "b" * 64, "a\n", "ä")),
    ],
)
def test_labels_that_it_refuses(labels):
    with pytest.raises(ValueError, match="label"):
        check(labels)


@pytest.mark.parametrize(
    ("text", "fits"),
    [
        ("", True),
        ("a", True),
        ("!a", False),
        ("!c", True),
        ("a=1", True),
        ("a == 1", True),
        ("a!=1", False),
        ("c!=1", True),
        ("a=1,b=", True),
        ("a=1, b=2", False),
        ("x.y/z=1", False),
    ],
)
def test_selectors(text, fits):
    assert selector(text)({"a": "1", "b": ""}) is fits


@pytest.mark.parametrize("text", ["a b", "=1", "a=1=2", "!a=1", ",", "a,,b", "a=-", "a" * 5000])
def test_texts_that_select_nothing(text):
    with pytest.raises(ValueError, match=r"label|selector"):
        selector(text)
