"""Jobs that run at the same time: each has its own, from when it begins until it is stopped."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.e2e.network import Network
from tests.e2e.services import Recorder, paths

pytestmark = [pytest.mark.root, pytest.mark.debian]


def test_each_job_has_what_it_asked_for_and_no_more(
    network: Network, live: Recorder, new_name: Callable[[], str]
) -> None:
    word = new_name()
    failures, names, late = f"{word}-failures", f"{word}-names", f"{word}-late"
    live.record(failures, f'http and request.path.startsWith("/broken/{word}")')
    live.record(names, "dns")
    network.curl(f"/broken/{word}-1")
    network.curl(f"/ok/{word}-1")
    network.dig(f"{word}-1.web.shop.test")
    live.record(late, "http or dns", "--duration", "1")
    network.curl(f"/broken/{word}-2")
    network.curl(f"/ok/{word}-2")
    network.dig(f"{word}-2.web.shop.test")
    live.wait_for(f'record("{failures}")', 2)
    stopped = live.stop_job(failures)
    network.curl(f"/broken/{word}-3")
    network.dig(f"{word}-3.web.shop.test")
    live.wait_for(f'record("{names}")', 3)
    live.wait_for(f'record("{late}")', 5)

    assert stopped["state"] == "stopped"
    assert paths(live.ask(f'record("{failures}")')) == [f"/broken/{word}-1", f"/broken/{word}-2"]
    of_names = live.ask(f'record("{names}")')
    assert [entry["request"]["questions"][0]["name"] for entry in of_names] == [
        f"{word}-{number}.web.shop.test" for number in (1, 2, 3)
    ]
    assert paths(live.ask(f'record("{late}") and http')) == [
        f"/broken/{word}-2", f"/broken/{word}-3", f"/ok/{word}-2",
    ]  # fmt: skip
    assert len(live.ask(f'record("{late}") and dns')) == 2
    both = live.ask(f'record("{failures}") or record("{names}")')
    assert sorted({entry["record"] for entry in both}) == [failures, names]
    assert len(both) == 5

    live.stop_job(names)
    live.stop_job(late)
    live.say("jobs", "delete", failures)
    gone = live.run("ask", f'record("{failures}")')
    assert gone.code == 2
    assert f'There is no recording "{failures}"' in gone.said
    assert not (live.data / "recordings" / failures).exists()
