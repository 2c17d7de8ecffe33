from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import kfl
from recordings import schema
from services.query import plan
from services.query.engine import Engine, Question
from services.query.plan import Source


def test_values_names_and_paths_are_parameters_never_text(disk: Any) -> None:
    run = disk.run("web")
    run.append(entries=[{}])
    run.turn()
    run.append(entries=[{}])
    source = disk.catalog().open("web").source("entries")
    condition = kfl.compile(
        'record("web") and request.path == "/hostile\'" and response.body.contains("v4lue")'
    )
    question = plan.entries(condition, [source], limit=77).question
    for text in ("web", "hostile", "v4lue", str(disk.data), "77", ".parquet"):
        assert text not in question.sql
        assert text in str(question.parameters)


def test_only_the_files_of_the_snapshot_are_read(disk: Any) -> None:
    run = disk.run("web")
    run.append(entries=[{}])
    run.turn()
    (run.folder / "entries-00000009.parquet").write_bytes(b"left by a crash")
    source = disk.catalog().open("web").source("entries")
    question = plan.entries(kfl.compile('record("web")'), [source]).question
    assert [str(run.folder.resolve() / "entries-00000001.parquet")] in question.parameters
    assert "00000009" not in str(question.parameters)


def test_a_window_touches_what_overlaps_it() -> None:
    window = plan.Window(10, 20)
    assert window.touches(0, 10)
    assert window.touches(19, 30)
    assert window.touches(0, 30)
    assert not window.touches(0, 9)
    assert not window.touches(20, 30)
    assert plan.ALWAYS.touches(0, 0)


SECOND_NS = 1_000_000_000


@pytest.fixture
def minutes(disk: Any) -> Source:
    """Three files, a minute apart."""
    run = disk.run("web")
    for minute in range(3):
        run.append(entries=[{"start_time": disk.start_ns + minute * 60 * SECOND_NS}])
        run.turn()
    source: Source = disk.catalog().open("web").source("entries")
    return source


def files(question: Question) -> list[str]:
    """Last digits of the names of the files that a question reads, in its order."""
    lists = [value for value in question.parameters if isinstance(value, list)]
    return [path[-9] for found in lists for path in found]


def asked(text: str, source: Source, **more: Any) -> Question:
    return plan.entries(kfl.compile(f'record("web") and {text}'), [source], **more).question


def test_files_outside_the_times_of_the_filter_are_not_read(minutes: Source) -> None:
    # 2025-11-22T23:12:00.123Z and on.
    late = 'timestamp >= timestamp("2025-11-22T23:13:00Z")'
    early = 'timestamp < timestamp("2025-11-22T23:13:30Z")'
    assert files(asked("http", minutes)) == ["1", "2", "3"]
    assert files(asked(late, minutes)) == ["2", "3"]
    assert files(asked(f"{late} and {early}", minutes)) == ["2"]
    assert files(asked(f"({late} and {early} or {late} and dns)", minutes)) == ["2", "3"]


def test_a_contradiction_reads_nothing(minutes: Source, engine: Engine) -> None:
    question = asked("response.status == 500 and response.status == 404", minutes)
    assert files(question) == []
    with engine.session(10) as session:
        assert list(session.rows(question)) == []


def test_the_newest_file_is_read_first_when_the_last_entries_are_wanted(minutes: Source) -> None:
    assert files(asked("http", minutes, descending=True)) == ["3", "2", "1"]


def test_a_hot_field_is_decided_by_the_reader_of_the_file(minutes: Source) -> None:
    question = asked(
        'response.status == 500 and src.name == "cart" and http'
        ' and timestamp > timestamp("2025-11-22T23:00:00Z")'
        ' and request.path.startsWith("/api")',
        minutes,
    )
    explained = duckdb.execute("EXPLAIN " + question.sql, question.parameters).fetchall()[0][1]
    shown = "".join(part for part in explained if part not in "│ \n")
    for condition in (
        "response_status=500",
        "src_name='cart'",
        "start_time>='2025-11-2223:00:00.001+00'",
        "request_path>='/api'ANDrequest_path<'/apj'",
    ):
        assert condition in shown
    assert "json" not in question.sql


def test_json_is_looked_into_where_a_protocol_may_have_the_field_there(disk: Any) -> None:
    run = disk.run("web")
    run.append(entries=[{}, {"protocol_name": "dns"}])
    run.turn()
    assert "json" not in asked("response.status == 500", _entries_of(disk)).sql
    run.append(entries=[{"protocol_name": "amqp"}])
    assert "json" in asked("response.status == 500", _entries_of(disk)).sql


def _entries_of(disk: Any) -> Source:
    source: Source = disk.catalog().open("web").source("entries")
    return source


def test_streams_of_an_older_release_have_nulls_where_it_had_no_columns(
    disk: Any, engine: Engine
) -> None:
    run = disk.run("web")
    for number, name in enumerate(("old", "mixed"), 1):
        run.append(streams=[{"stream": f"{number:016x}", "vlan": "5", "tunnel": "vxlan 42"}])
        run.turn()
        if name == "old":
            path = run.folder / "streams-00000001.parquet"
            pq.write_table(pq.read_table(path).drop_columns(["vlan", "tunnel"]), path)
        source = disk.catalog().open("web").source("streams")
        found = []
        with engine.session(30) as session:
            for each in range(1, number + 1):
                question = plan.of_stream(schema.STREAMS, source, "node-1", f"{each:016x}")
                rows = pa.Table.from_batches(session.rows(question)).select(["vlan", "tunnel"])
                found += [tuple(row.values()) for row in rows.to_pylist()]
        assert found == [(None, None), ("5", "vxlan 42")][:number]
