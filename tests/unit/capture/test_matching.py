"""Which calls of which streams go into a recording."""

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import pytest

import kfl
from kfl.batch import Shared
from recordings import schema
from services.capture.assignments import ActiveRun, Assignment
from services.capture.matching import Matcher, Matches, StreamBits

MOST_STREAMS = 16
HOT = ("protocol_name", "response_status", "request_method", "request_path")


class TableCalls:
    """Calls of HTTP, each given as (stream, method, path, status, body of the response)."""

    def __init__(self, *rows: tuple[int, str, str, int, str]) -> None:
        self.streams = np.array([row[0] for row in rows], np.int64)
        self.built: list[int] = []
        given: dict[str, list[object]] = {
            "index": list(range(len(rows))),
            "stream": [f"{row[0]:016x}" for row in rows],
            "request_method": [row[1] for row in rows],
            "request_path": [row[2] for row in rows],
            "request_url": [row[2] for row in rows],
            "response_status": [row[3] for row in rows],
            "response_body": [row[4] for row in rows],
        }
        always = {
            "start_time": 10**18,
            "node_name": "n",
            "node_ip": "",
            "protocol_name": "http",
            "protocol_version": "1.1",
            "protocol_abbr": "HTTP",
            "transport": "tcp",
            "tls": False,
        }
        self.table = pa.table(
            {f.name: given.get(f.name, [always.get(f.name)] * len(rows)) for f in schema.ENTRIES},
            schema=schema.ENTRIES,
        )

    protocol = "http"
    constants: Mapping[str, Shared] = {"protocol_name": "http", "tls": False}

    def __len__(self) -> int:
        return len(self.streams)

    def columns(self) -> Mapping[str, np.ndarray]:
        found: dict[str, np.ndarray] = {}
        for name in HOT:
            column = self.table.column(name)
            is_text = pa.types.is_string(column.type)
            found[name] = np.array(column.to_pylist(), object if is_text else np.int64)
        return found

    def entries(self, rows: np.ndarray) -> pa.Table:
        self.built += rows.tolist()
        return self.table.take(pa.array(rows))


def run(text: str, bit: int = 0) -> ActiveRun:
    return ActiveRun(Assignment(f"job-{bit}", 1, text, 0, 1, 100), kfl.compile(text), bit)


def paths(matches: Matches, of: ActiveRun) -> list[str]:
    return [
        path
        for each, table in matches.entries
        if each is of
        for path in table.column("request_path").to_pylist()
    ]


def opened(matches: Matches, of: ActiveRun) -> list[int]:
    return [number for each, numbers in matches.opened if each is of for number in numbers.tolist()]


def match(matcher: Matcher, runs: Sequence[ActiveRun], *calls: TableCalls) -> Matches:
    return matcher.match(calls, runs)


def test_all_entries_of_a_stream_come_from_its_first_match_on() -> None:
    matcher, fails = Matcher(MOST_STREAMS), run("response.status == 500")
    matcher.begin(fails)
    first = match(
        matcher, [fails], TableCalls((1, "GET", "/a", 200, ""), (2, "GET", "/b", 500, ""))
    )
    assert (opened(first, fails), paths(first, fails)) == ([2], ["/b"])
    later = match(
        matcher,
        [fails],
        TableCalls((2, "GET", "/c", 200, ""), (1, "GET", "/d", 200, ""), (2, "GET", "/e", 500, "")),
    )
    assert (opened(later, fails), paths(later, fails)) == ([], ["/c", "/e"])


def test_entries_of_the_same_batch_come_too_though_they_came_before_the_match() -> None:
    matcher, fails = Matcher(MOST_STREAMS), run("response.status == 500")
    matcher.begin(fails)
    matches = match(
        matcher,
        [fails],
        TableCalls((2, "GET", "/a", 200, ""), (2, "GET", "/b", 500, "")),
        TableCalls((2, "GET", "/c", 200, ""), (3, "GET", "/d", 200, "")),
    )
    assert opened(matches, fails) == [2]
    assert paths(matches, fails) == ["/a", "/b", "/c"]


def test_a_filter_on_what_is_not_hot_looks_into_the_entry() -> None:
    matcher, finds = Matcher(MOST_STREAMS), run('response.body.contains("teapot")')
    matcher.begin(finds)
    calls = TableCalls((1, "GET", "/a", 200, "a teapot"), (2, "GET", "/b", 200, "a cup"))
    matches = match(matcher, [finds], calls)
    assert (opened(matches, finds), paths(matches, finds)) == ([1], ["/a"])


def test_entries_are_not_built_for_what_hot_columns_rule_out_nor_twice() -> None:
    matcher = Matcher(MOST_STREAMS)
    runs = [
        run('response.status == 500 and response.body.contains("x")', 0),
        run('response.status == 500 and response.body.contains("y")', 1),
    ]
    for each in runs:
        matcher.begin(each)
    calls = TableCalls(
        (1, "GET", "/a", 200, "x"), (2, "GET", "/b", 500, "xy"), (3, "GET", "/c", 200, "y")
    )
    matches = match(matcher, runs, calls)
    assert [paths(matches, each) for each in runs] == [["/b"], ["/b"]]
    assert calls.built == [1]


def test_a_call_that_matches_on_hot_columns_costs_nothing_elsewhere() -> None:
    matcher, nothing = Matcher(MOST_STREAMS), run("response.status == 404")
    matcher.begin(nothing)
    calls = TableCalls((1, "GET", "/a", 200, ""))
    assert match(matcher, [nothing], calls) == Matches((), ())
    assert calls.built == []


def test_runs_do_not_see_each_others_streams() -> None:
    matcher, gets, posts = Matcher(MOST_STREAMS), run('request.method == "GET"', 0), run("http", 63)
    posts = run('request.method == "POST"', 63)
    matcher.begin(gets)
    matcher.begin(posts)
    matches = match(
        matcher, [gets, posts], TableCalls((1, "GET", "/a", 200, ""), (2, "POST", "/b", 200, ""))
    )
    assert (opened(matches, gets), opened(matches, posts)) == ([1], [2])
    assert (paths(matches, gets), paths(matches, posts)) == (["/a"], ["/b"])
    later = match(matcher, [gets, posts], TableCalls((1, "POST", "/c", 200, "")))
    assert (paths(later, gets), paths(later, posts)) == (["/c"], ["/c"])


def test_a_run_that_gets_the_bit_of_an_earlier_one_begins_with_nothing() -> None:
    matcher, before = Matcher(MOST_STREAMS), run("http", 5)
    matcher.begin(before)
    match(matcher, [before], TableCalls((1, "GET", "/a", 200, "")))
    after = run("response.status == 500", 5)
    matcher.begin(after)
    matches = match(matcher, [after], TableCalls((1, "GET", "/b", 200, "")))
    assert matches == Matches((), ())


def test_a_stream_does_not_inherit_what_another_one_in_its_row_was() -> None:
    matcher, fails = Matcher(MOST_STREAMS), run("response.status == 500")
    matcher.begin(fails)
    match(matcher, [fails], TableCalls((3, "GET", "/a", 500, "")))
    other = 3 + MOST_STREAMS
    assert not match(matcher, [fails], TableCalls((other, "GET", "/b", 200, ""))).entries


def test_at_the_limit_no_stream_is_added_and_those_that_are_in_go_on() -> None:
    matcher, two = Matcher(MOST_STREAMS), run("http and limit(2)")
    matcher.begin(two)
    matches = match(
        matcher, [two], TableCalls(*((n, "GET", f"/{n}", 200, "") for n in range(1, 5)))
    )
    assert opened(matches, two) == [1, 2]
    later = match(
        matcher, [two], TableCalls((9, "GET", "/nine", 200, ""), (2, "GET", "/again", 200, ""))
    )
    assert paths(later, two) == ["/again"]


def test_a_call_without_a_stream_comes_alone() -> None:
    matcher, fails = Matcher(MOST_STREAMS), run("response.status == 500")
    matcher.begin(fails)
    matches = match(
        matcher, [fails], TableCalls((0, "GET", "/a", 500, ""), (0, "GET", "/b", 200, ""))
    )
    assert (opened(matches, fails), paths(matches, fails)) == ([], ["/a"])


def test_the_table_of_streams_has_a_power_of_two_rows() -> None:
    with pytest.raises(ValueError, match="power of two"):
        StreamBits(12)


class OtherCalls(TableCalls):
    """Calls that no column but those of HTTP says anything of."""

    protocol = "dns"
    constants: Mapping[str, Shared] = {"protocol_name": "dns", "tls": False}

    def columns(self) -> Mapping[str, np.ndarray]:
        raise AssertionError("a filter for another protocol looked at these calls")


def test_calls_of_a_protocol_that_a_filter_rules_out_are_not_looked_at() -> None:
    matcher = Matcher(MOST_STREAMS)
    runs = [run("http and response.status == 500", 0), run("http and src.name == 'a'", 1)]
    calls = OtherCalls((1, "GET", "/a", 500, ""))
    assert match(matcher, runs, calls) == Matches((), ())
    # Another list of runs is another question.
    added = [*runs, run("tcp", 2)]
    with pytest.raises(AssertionError, match="looked"):
        calls.columns()
    assert match(matcher, added, TableCalls((1, "GET", "/a", 500, ""))).entries


def test_runs_share_the_entries_that_they_look_into() -> None:
    matcher = Matcher(MOST_STREAMS)
    runs = [run(f'response.body.contains("{part}")', bit) for bit, part in enumerate("xyz")]
    calls = TableCalls((1, "GET", "/a", 200, "x"), (2, "GET", "/b", 200, "y"))
    matches = match(matcher, runs, calls)
    assert [paths(matches, each) for each in runs] == [["/a"], ["/b"], []]
    assert sorted(calls.built) == [0, 1]
