"""One leads, and when it is lost another one does."""

import time

import pytest
import sqlalchemy as sa

from services.scheduler.database import Database
from services.scheduler.members import Members

pytestmark = pytest.mark.postgresql


@pytest.fixture
def url(postgresql):
    return postgresql.database()


@pytest.fixture
def members(tmp_path, url):
    """Two schedulers, each with connections of its own."""
    databases = [Database(tmp_path, url) for _ in range(2)]
    made = [Members(d, n, f"{n}:1") for d, n in zip(databases, ("one", "two"), strict=True)]
    for member in made:
        member.say()
    yield made
    for member, database in zip(made, databases, strict=True):
        member.resign()
        database.close()


def silence(member, name):
    """Let the database think that it has said nothing for a minute."""
    query = "UPDATE schedulers SET seen_time = seen_time - interval '1 minute' WHERE name = :name"
    with member._database.engine.begin() as connection:
        connection.execute(sa.text(query), {"name": name})


def leads_soon(member):
    """The server takes a moment to notice that a connection has gone."""
    end = time.monotonic() + 30
    while not member.lead():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_one_leads_and_all_know_which(members):
    one, two = members
    assert one.leader() is None
    assert one.lead()
    assert not two.lead()
    assert one.is_leading()
    assert not two.is_leading()
    assert two.leader() == one.leader()
    assert (two.leader().name, two.leader().address) == ("one", "one:1")


def test_each_leader_has_a_term_of_its_own(members):
    one, two = members
    assert one.lead()
    first = one.leader().term
    one.resign()
    leads_soon(two)
    assert two.leader().term == first + 1
    one.say()
    assert one.leader().name == "two"


def test_a_leader_whose_connection_breaks_leads_no_more(members):
    one, two = members
    assert one.lead()
    one._lock.connection.dbapi_connection.close()  # as when its node is lost
    leads_soon(two)
    assert not one.is_leading()
    assert not one.lead()


def test_a_leader_that_hangs_is_ended_and_one_that_speaks_is_not(members):
    one, two = members
    assert one.lead()
    assert not two.lead()
    assert one.is_leading()
    silence(two, "one")
    assert not two.lead()  # it ends the connection
    leads_soon(two)
    assert not one.is_leading()


def test_who_leaves_is_away_at_once(members):
    one, two = members
    assert one.lead()
    one.resign()
    one.leave()
    assert {m.name: m.is_away for m in two.all()} == {"one": True, "two": False}
    assert two.leader() is None


def test_locks_of_other_databases_are_others(members, tmp_path, postgresql):
    assert members[0].lead()
    elsewhere = Database(tmp_path, postgresql.database())
    other = Members(elsewhere, "other", "other:1")
    assert other.lead()
    assert members[0].is_leading()
    other.resign()
    elsewhere.close()
