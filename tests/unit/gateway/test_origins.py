"""Pages of other sites may not call, and a name that leads here is not enough."""

from __future__ import annotations

import pytest

from services.gateway.origins import Origins
from services.gateway.problems import ProblemError

HERE = "127.0.0.1:8899"
SHOP = "https://shop.example.com"


@pytest.mark.parametrize(
    "host", ["127.0.0.1:8899", "[::1]:8899", "localhost", "10.1.2.3", "recorder.example.com:80", ""]
)
def test_names_that_are_ours(host: str) -> None:
    assert Origins(hosts=["recorder.example.com"]).check(host, "") == []


@pytest.mark.parametrize(
    "host", ["evil.example.com", "localhost.evil.com", "127.0.0.1.evil.com:8899", "[::1", "a b"]
)
def test_a_name_that_only_leads_here_is_refused(host: str) -> None:
    with pytest.raises(ProblemError) as caught:
        Origins().check(host, "")
    assert caught.value.problem.status == 421
    Origins(hosts=["*"]).check(host, "")


@pytest.mark.parametrize(
    "origin", [SHOP, "null", "http://127.0.0.1:1", "https://shop.example.com:"]
)
def test_no_page_may_call_by_default(origin: str) -> None:
    with pytest.raises(ProblemError) as caught:
        Origins().check(HERE, origin)
    assert caught.value.problem.status == 403


def test_a_page_of_this_server_may() -> None:
    assert Origins().check(HERE, f"http://{HERE}") == []


def test_a_page_that_is_listed_may_and_others_not() -> None:
    origins = Origins(allowed=[SHOP])
    assert ("access-control-allow-origin", SHOP) in origins.check(HERE, SHOP)
    # A cache must not give the answer for one page to another.
    assert ("vary", "origin") in origins.check(HERE, "")
    with pytest.raises(ProblemError):
        origins.check(HERE, "https://other.example.com")
    assert ("access-control-allow-origin", "https://other.example.com") in Origins(
        allowed=["*"]
    ).check(HERE, "https://other.example.com")
