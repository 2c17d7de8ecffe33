import threading

import pytest

from services.scheduler.quota import Quota, on_disk, parse_size, spoken


@pytest.mark.parametrize(
    ("text", "octets"),
    [
        ("500Mi", 500 << 20),
        ("5Gi", 5 << 30),
        ("500MB", 500_000_000),
        ("500M", 500_000_000),
        ("1.5GiB", 3 << 29),
        (" 10 KiB ", 10240),
        ("4k", 4000),
        ("1048576", 1048576),
        ("2T", 2 * 10**12),
    ],
)
def test_sizes(text, octets):
    assert parse_size(text) == octets


@pytest.mark.parametrize("text", ["", "0", "0Mi", "-5Gi", "5 apples", "5gi", "1e9", "nan", "½Gi"])
def test_what_is_no_size_is_refused_with_an_example(text):
    with pytest.raises(ValueError, match="is not a size; write a number above 0 and a unit"):
        parse_size(text)


def test_sizes_for_people():
    assert [spoken(n) for n in (900, 2048, 500 << 20, 3 << 29)] == [
        "900 bytes",
        "2 KiB",
        "500 MiB",
        "1.5 GiB",
    ]


def test_files_take_whole_blocks():
    assert [on_disk(n) for n in (0, 1, 4096, 4097)] == [0, 4096, 4096, 8192]


def test_no_more_than_the_limit_is_given():
    quota = Quota(100)
    assert quota.reserve(60)
    assert not quota.reserve(41)
    assert quota.used == 60
    quota.release(60)
    assert quota.reserve(100)


def test_what_is_on_disk_already_counts_even_beyond_the_limit():
    quota = Quota(100)
    quota.adopt(150)
    assert quota.used == 150
    assert not quota.reserve(1)


def test_without_a_limit_everything_fits():
    assert Quota(None).reserve(1 << 60)


def test_a_limit_is_above_zero():
    with pytest.raises(ValueError, match="above 0"):
        Quota(0)


def test_many_threads_cannot_exceed_it():
    quota, given = Quota(1000), []

    def take():
        given.append(sum(quota.reserve(7) for _ in range(200)))

    threads = [threading.Thread(target=take) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(given) == 142
    assert quota.used == 994
