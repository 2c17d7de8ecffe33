import pytest

from services.runtime.values import octets


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("500Mi", 500 << 20),
        ("512MB", 512_000_000),
        ("1.5GiB", 3 << 29),
        ("64k", 64_000),
        (" 4096 ", 4096),
        (7, 7),
    ],
)
def test_sizes(text, expected):
    assert octets(text) == expected


@pytest.mark.parametrize("text", ["", "Mi", "-1", "1e9", "5 apples", "1" * 40, "٣", None, True])
def test_sizes_that_are_none(text):
    with pytest.raises(ValueError, match="500Mi"):
        octets(text)
