"""Jobs survive a restart; no state changes without a row of history; nothing is stored by half."""

import sqlite3
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from services.runtime.errors import UserError
from services.scheduler import jobstore, tables
from services.scheduler.database import TERM, NotLeadingError, count
from services.scheduler.jobs import (
    ForbiddenMoveError,
    Job,
    JobState,
    Run,
    Spec,
    begin_run,
    move_job,
    move_run,
)
from services.scheduler.jobstore import Event, JobStore, NameTakenError, Removal, StoreError
from services.scheduler.members import Members

NOW = datetime(2026, 3, 1, 12, 30, 15, 123456, tzinfo=UTC)
LATER = NOW + timedelta(hours=1)


@pytest.fixture
def data(tmp_path):
    return tmp_path / "data"


@pytest.fixture
def make(data, database_url):
    """Opens the store, and later opens it again."""
    made = []

    def open_store():
        for store in made:
            store.close()
        store = JobStore(data, database_url, "one" if database_url else "")
        made.append(store)
        if database_url:
            lead(store)
        return store

    yield open_store
    for store in made:
        store.close()


def lead(store):
    """Begin a term, as who holds the lock does."""
    with store.database.engine.begin() as connection:
        store.database.term = count(connection, TERM)


@pytest.fixture
def store(make):
    return make()


@pytest.fixture
def file_store(data):
    """A store in SQLite."""
    store = JobStore(data)
    yield store
    store.close()


def job(name="checkout", created=NOW) -> Job:
    spec = Spec(
        name=name,
        kfl='request.path == "/a\'b" or dns',
        start_time="22:00",
        daily_iterations=3,
        duration_minutes=60,
        expiration_minutes=120,
        body_limit=4096,
        imported=False,
    )
    return Job(
        spec=spec,
        state=JobState.SCHEDULED,
        reason="",
        create_time=created,
        change_time=created,
        first_start=NOW,
    )


def run_of(number: int) -> Run:
    return Run(number=number, state=JobState.RECORDING, reason="", start_time=NOW, end_time=LATER)


def recording(before: Job) -> Job:
    run = Run(
        number=1,
        state=JobState.RECORDING,
        reason="",
        start_time=NOW,
        end_time=LATER,
        nodes=("a", "b"),
    )
    return move_job(begin_run(before, run), JobState.RECORDING, NOW)


def test_a_job_is_the_same_after_a_restart(make, store):
    store.add(job())
    store.save(recording(job()), NOW)
    again = make()
    assert again.jobs() == [recording(job())]


def test_jobs_come_oldest_first(store):
    store.add(job("younger", LATER))
    store.add(job("older", NOW))
    assert [j.name for j in store.jobs()] == ["older", "younger"]


def test_a_name_is_taken_once(store):
    store.add(job())
    with pytest.raises(NameTakenError, match="a job named checkout already"):
        store.add(replace(job(), create_time=LATER))
    assert store.jobs() == [job()]


def test_every_change_of_state_is_in_the_history_with_time_and_reason(store):
    store.add(job())
    begun = recording(job())
    store.save(begun, NOW)
    ended = move_run(begun, 1, JobState.STORAGE_LIMITED, "The limit is reached.")
    ended = move_job(ended, JobState.STORAGE_LIMITED, LATER, "The limit is reached.")
    store.save(ended, LATER)
    store.remove("checkout", LATER, "Deleted by request.", with_data=True)
    assert store.events("checkout") == [
        Event(NOW, "checkout", None, None, JobState.SCHEDULED, "Created."),
        Event(NOW, "checkout", None, JobState.SCHEDULED, JobState.RECORDING, ""),
        Event(NOW, "checkout", 1, None, JobState.RECORDING, ""),
        Event(LATER, "checkout", None, JobState.RECORDING, JobState.STORAGE_LIMITED, ended.reason),
        Event(LATER, "checkout", 1, JobState.RECORDING, JobState.STORAGE_LIMITED, ended.reason),
        Event(LATER, "checkout", None, JobState.STORAGE_LIMITED, None, "Deleted by request."),
    ]
    assert store.jobs() == []


def test_a_change_of_counts_is_stored_and_is_no_history(store):
    store.add(job())
    begun = recording(job())
    store.save(begun, NOW)
    counted = replace(begun, runs=(replace(begun.runs[0], entries=7, bytes=2**40),))
    before = store.events("checkout")
    store.save(counted, NOW)
    assert store.jobs() == [counted]
    assert store.events("checkout") == before


def test_a_forbidden_move_is_not_stored(store):
    store.add(job())
    begun = recording(job())
    store.save(begun, NOW)
    with pytest.raises(ForbiddenMoveError):
        store.save(replace(begun, state=JobState.SCHEDULED), NOW)
    back = replace(begun, runs=(replace(begun.runs[0], state=JobState.EXPIRED),))
    with pytest.raises(ForbiddenMoveError):
        store.save(replace(back, reason="half"), NOW)
    assert store.jobs() == [begun]


def test_a_job_that_is_not_there_cannot_be_saved_or_removed(store):
    with pytest.raises(LookupError):
        store.save(job(), NOW)
    with pytest.raises(LookupError):
        store.remove("checkout", NOW, "", with_data=True)
    assert store.removals() == []


def test_runs_that_a_job_no_longer_has_are_dropped(store):
    store.add(job())
    store.save(recording(job()), NOW)
    store.save(replace(recording(job()), runs=()), NOW)
    assert store.jobs()[0].runs == ()


def test_data_to_be_removed_is_remembered_until_it_is(make, store):
    store.add(job())
    store.save(recording(job()), NOW, removals=[1])
    store.save(recording(job()), NOW, removals=[1])
    store.remove("checkout", LATER, "Deleted.", with_data=True)
    again = make()
    assert again.removals() == [Removal("checkout", 0), Removal("checkout", 1)]
    again.removed(Removal("checkout", 0))
    assert again.removals() == [Removal("checkout", 1)]


def test_revisions_go_on_after_a_restart(make, store):
    assert [store.next_revision(), store.next_revision()] == [1, 2]
    again = make()
    assert again.next_revision() == 3


def test_old_history_is_forgotten(store):
    store.add(job("old", NOW))
    store.add(job("there", NOW))
    store.remove("old", NOW, "Deleted by request.", with_data=False)
    store.add(job("new", LATER))
    assert store.forget_events(LATER) == 2
    assert store.events("old") == []
    assert len(store.events("there")) == 1
    assert len(store.events("new")) == 1


def test_the_file_can_be_read_by_people_while_it_is_open(data, file_store):
    file_store.add(job())
    with sqlite3.connect(data / "jobs.sqlite") as other:
        row = other.execute("SELECT state, first_start FROM jobs").fetchone()
    other.close()
    assert row == ("scheduled", "2026-03-01 12:30:15.123456")


def test_runs_need_their_job(store):
    values = jobstore._run_values("nobody", recording(job()).runs[0])
    with store.database.engine.connect() as connection, pytest.raises(sa.exc.IntegrityError):
        connection.execute(sa.insert(tables.RUNS).values(**values))


def test_the_migrations_make_the_tables_that_the_program_uses(store):
    with store.database.engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), tables.METADATA) == []


def test_jobs_of_the_first_version_are_kept(data, file_store):
    file_store.add(job())
    file_store.close()
    with sqlite3.connect(data / "jobs.sqlite") as other:
        other.execute("DROP TABLE agents")
        for table in ("parts", "schedulers"):
            other.execute(f"DROP TABLE {table}")
        other.execute("DROP TABLE removals")
        other.execute("CREATE TABLE removals (job VARCHAR, run INTEGER, PRIMARY KEY (job, run))")
        for column in ("expanded_kfl", "run_missed", "pinned", "labels", "description"):
            other.execute(f"ALTER TABLE jobs DROP COLUMN {column}")
        other.execute("ALTER TABLE jobs DROP COLUMN size_limit")
        other.execute("ALTER TABLE jobs DROP COLUMN on_full")
        other.execute("ALTER TABLE runs DROP COLUMN pinned")
        other.execute("ALTER TABLE runs DROP COLUMN completeness")
        other.execute("UPDATE alembic_version SET version_num = '0001'")
    other.close()
    again = JobStore(data)
    assert again.jobs() == [job()]
    assert again.jobs()[0].spec.recorded_kfl == job().spec.kfl
    again.close()


def test_a_later_version_of_the_file_is_refused_with_a_sentence(data, file_store):
    file_store.close()
    with sqlite3.connect(data / "jobs.sqlite") as other:
        other.execute("UPDATE alembic_version SET version_num = 'from the future'")
    other.close()
    with pytest.raises(UserError, match="written by a later version"):
        JobStore(data)


def test_a_file_that_is_no_database_is_refused_with_a_sentence(data):
    data.mkdir()
    (data / "jobs.sqlite").write_bytes(b"not a database" * 1000)
    with pytest.raises(UserError, match=r"Cannot use .*jobs\.sqlite: file is not a database"):
        JobStore(data)


def test_a_folder_that_cannot_be_made_is_refused_with_a_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="Cannot use the data folder"):
        JobStore(tmp_path / "file" / "data")


def test_a_path_with_a_percent_sign_is_only_a_path(tmp_path):
    store = JobStore(tmp_path / "100%(home)s")
    store.add(job())
    assert len(store.jobs()) == 1
    store.close()


def test_what_cannot_be_written_is_a_sentence_and_changes_nothing(file_store):
    file_store.add(job())
    with file_store.database.engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA max_page_count=1")  # as if the disk were full
        connection.commit()
    many = [run_of(number) for number in range(1, 5000)]
    with pytest.raises(StoreError, match=r"Cannot write .*full"):
        file_store.save(replace(job(), runs=tuple(many)), NOW)
    assert file_store.jobs() == [job()]


@pytest.fixture
def shared(postgresql, tmp_path):
    """Stores of two schedulers in one database; the first leads."""
    url = postgresql.database()
    stores = [JobStore(tmp_path / name, url, name) for name in ("one", "two")]
    lead(stores[0])
    yield stores
    for store in stores:
        store.close()


@pytest.mark.postgresql
def test_who_does_not_lead_changes_no_job(shared):
    one, two = shared
    one.add(job())
    with pytest.raises(NotLeadingError):
        two.save(recording(job()), NOW)
    lead(two)
    with pytest.raises(NotLeadingError, match="Another scheduler leads by now"):
        one.remove("checkout", NOW, "", with_data=True)
    two.save(recording(job()), NOW)
    assert one.jobs() == two.jobs() == [recording(job())]


@pytest.mark.postgresql
def test_changes_are_counted_for_those_who_do_not_lead(shared):
    one, two = shared
    before = two.changes()
    one.add(job())
    after = two.changes()
    assert after > before
    assert two.changes() == after


@pytest.mark.postgresql
def test_each_scheduler_removes_what_it_has(shared):
    one, two = shared
    for store, name in ((one, "one"), (two, "two")):
        Members(store.database, name, "127.0.0.1:1").say()
    one.add(job())
    one.remove("checkout", NOW, "", with_data=True)
    one.removed(Removal("checkout", 0))
    assert one.removals() == []
    assert two.removals() == [Removal("checkout", 0)]
    two.removed(Removal("checkout", 0))
    assert two.removals() == []


@pytest.mark.parametrize(
    "url",
    ["mysql://db/jobs", "postgresql//x", "jobs.sqlite", "http://a:b@", "postgresql://h:port/x"],
)
def test_a_url_that_is_none_of_postgresql_is_refused_with_a_sentence(data, url):
    with pytest.raises(UserError, match="has to be one of PostgreSQL, as in postgresql://"):
        JobStore(data, url)


def test_a_server_that_is_not_there_is_refused_with_a_sentence_without_the_password(data):
    with pytest.raises(UserError, match=r"Cannot use postgresql.*refused") as refused:
        JobStore(data, "postgresql://recorder:secret@127.0.0.1:1/jobs")
    assert "secret" not in str(refused.value)
