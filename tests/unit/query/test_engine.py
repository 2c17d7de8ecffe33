import threading
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from services.query.engine import (
    BATCH_ROWS,
    CancelledError,
    DamagedFileError,
    Engine,
    EngineError,
    FilesGoneError,
    OutOfMemoryError,
    OutOfTimeError,
    Question,
)

FOR_EVER = "SELECT sum(hash(a.range + b.range)) FROM range(10000000) a, range(10000000) b"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    (tmp_path / "recordings").mkdir()
    pq.write_table(pa.table({"x": [1, 2, 3]}), tmp_path / "recordings" / "inside.parquet")
    pq.write_table(pa.table({"x": [9]}), tmp_path / "outside.parquet")
    return tmp_path.resolve()


@pytest.fixture
def engine(data: Path) -> Iterator[Engine]:
    made = Engine(data, memory_limit_bytes=128 << 20, threads=2)
    yield made
    made.close()


def ask(engine: Engine, sql: str, *parameters: object, **tables: pa.Table) -> list[object]:
    with engine.session(30) as session:
        batches = list(session.rows(Question(sql, parameters, tables)))
    return pa.Table.from_batches(batches).to_pylist() if batches else []


def test_files_of_recordings_can_be_read(engine: Engine, data: Path) -> None:
    files = [str(data / "recordings" / "inside.parquet")]
    found = ask(engine, "SELECT sum(x)::INT AS s FROM read_parquet(?)", files)
    assert found == [{"s": 6}]


def test_a_table_is_seen_by_its_own_question_only(engine: Engine) -> None:
    rows = pa.table({"x": [4]})
    with engine.session(30) as mine, engine.session(30) as other:
        question = Question("SELECT x FROM tail_0", [], {"tail_0": rows})
        found = mine.rows(question)
        assert next(found).to_pylist() == [{"x": 4}]
        with pytest.raises(EngineError):
            list(other.rows(Question("SELECT x FROM tail_0", [], {})))
        assert list(found) == []


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM read_parquet('{data}/outside.parquet')",
        "SELECT * FROM read_parquet('{data}/recordings/../outside.parquet')",
        "SELECT * FROM read_csv('/etc/passwd')",
        "SELECT * FROM read_text('/proc/self/environ')",
        "SELECT * FROM glob('/*')",
        "COPY (SELECT 1) TO '{data}/recordings/new.csv'",
        "ATTACH '{data}/new.db'",
        "INSTALL httpfs",
        "LOAD httpfs",
        "SET enable_external_access = true",
        "SET allowed_directories = ['/']",
        "SET lock_configuration = false",
        "RESET memory_limit",
        "PRAGMA threads=64",
        "CREATE TABLE t AS SELECT 1",
        "SELECT 1; SELECT 2",
        "",
        "SELECT * FROM data",  # a variable of this test
    ],
)
def test_nothing_else_can_be_done(engine: Engine, data: Path, sql: str) -> None:
    before = sorted(data.rglob("*"))
    with pytest.raises(EngineError) as caught:
        ask(engine, sql.format(data=data))
    assert "root:" not in str(caught.value)
    assert sorted(data.rglob("*")) == before


def test_a_link_out_of_the_recordings_is_written_nowhere_in_a_plan_but_values_stay_values(
    engine: Engine,
) -> None:
    hostile = "'; DROP TABLE x; SELECT * FROM read_csv('/etc/passwd') --"
    assert ask(engine, "SELECT ? AS v", hostile) == [{"v": hostile}]


def test_an_answer_comes_in_small_batches_while_it_is_found(engine: Engine) -> None:
    with engine.session(30) as session:
        rows = session.rows(
            Question("SELECT range, repeat('x', 1000) FROM range(1000000000)", [], {})
        )
        first = next(rows)
        assert 0 < first.num_rows <= BATCH_ROWS
        rows.close()


def test_a_runaway_is_interrupted_when_its_time_is_up(engine: Engine) -> None:
    with (
        engine.session(0.2) as session,
        pytest.raises(OutOfTimeError, match=r"after 0\.2 s of work"),
    ):
        list(session.rows(Question(FOR_EVER, [], {})))
    assert ask(engine, "SELECT 1 AS one") == [{"one": 1}]


def test_a_cancelled_question_stops_its_work(engine: Engine) -> None:
    with engine.session(3600) as session:
        timer = threading.Timer(0.2, session.interrupt)
        timer.start()
        with pytest.raises(CancelledError):
            list(session.rows(Question(FOR_EVER, [], {})))
        timer.join()


def test_a_question_that_was_cancelled_before_it_began_does_not_begin(engine: Engine) -> None:
    with engine.session(3600) as session:
        session.interrupt()
        with pytest.raises(CancelledError):
            list(session.rows(Question(FOR_EVER, [], {})))


def test_a_question_that_needs_too_much_memory_is_refused_with_a_sentence(data: Path) -> None:
    small = Engine(data, memory_limit_bytes=32 << 20, threads=1)
    try:
        with pytest.raises(OutOfMemoryError, match="more memory than it may have"):
            ask(small, "SELECT list(repeat('x', 1000) || range) FROM range(1000000)")
    finally:
        small.close()


def test_a_file_that_is_gone_is_told_as_such(engine: Engine, data: Path) -> None:
    gone = [str(data / "recordings" / "gone.parquet")]
    with pytest.raises(FilesGoneError):
        ask(engine, "SELECT * FROM read_parquet(?)", gone)


@pytest.mark.parametrize(
    "damage", [lambda octets: octets[:-9], lambda octets: b"", lambda octets: b"text" * 99]
)
def test_a_damaged_file_is_named(engine: Engine, data: Path, damage) -> None:
    path = data / "recordings" / "inside.parquet"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(
        DamagedFileError, match=r"/recordings/inside\.parquet of a recording is dam"
    ):
        ask(engine, "SELECT * FROM read_parquet(?)", [str(path)])


def test_closing_the_engine_ends_what_runs_and_removes_its_folder(data: Path) -> None:
    made = Engine(data, memory_limit_bytes=64 << 20, threads=1)
    caught: list[BaseException] = []

    def work() -> None:
        try:
            ask(made, FOR_EVER)
        except EngineError as error:
            caught.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    while not made._sessions:
        thread.join(0.01)
    made.close()
    thread.join()
    assert isinstance(caught[0], CancelledError)
    assert not Path(made._spill.name).exists()
