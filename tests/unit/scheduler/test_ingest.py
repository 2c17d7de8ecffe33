from dataclasses import replace
from datetime import UTC, datetime

import pytest

from services.scheduler.bulletin import Assignment
from services.scheduler.ingest import (
    Acknowledgement,
    Assignments,
    Delivery,
    Finished,
    Hello,
    Matched,
    ProtocolError,
    Refusal,
    Session,
    Welcome,
)
from services.scheduler.writer import Accepted, Batch, Refused

HELLO = Hello(1, "agent-1", "node-1", "10.0.0.7", "0.1.0")
NOW = datetime(2026, 11, 23, tzinfo=UTC)
ASSIGNMENT = Assignment("checkout", 1, "http", NOW, NOW, 65536)


def delivery(sequence, job="checkout", size=100, final=False):
    return Delivery(Batch(sequence, job, 1, (), final), size)


@pytest.fixture
def session():
    session = Session(window_bytes=1000, max_batch_bytes=500)
    session.receive(HELLO)
    return session


def test_a_whole_session():
    session = Session(window_bytes=1000, max_batch_bytes=500)
    assert session.receive(HELLO) == HELLO
    assert session.welcome(6) == Welcome(6, 1000, 500)
    assert session.assign(3, [ASSIGNMENT]) == Assignments(3, (ASSIGNMENT,))
    assert session.receive(delivery(7)) == delivery(7).batch
    session.receive(delivery(8))
    session.receive(delivery(9, final=True))
    assert session.settle(Accepted(7)) == [Acknowledgement(7)]
    # Answers come in any order, acknowledgements only without holes.
    assert session.settle(Accepted(9)) == [Finished("checkout", 1)]
    assert not session.is_settled
    assert session.settle(Refused(8, "It is full.")) == [
        Refusal(8, "It is full."),
        Acknowledgement(9),
    ]
    assert session.is_settled


def test_assignments_are_sent_when_they_change(session):
    assert session.assign(1, []) == Assignments(1, ())
    assert session.assign(2, []) is None
    assert session.assign(3, [ASSIGNMENT]) == Assignments(3, (ASSIGNMENT,))
    assert session.assign(4, [ASSIGNMENT]) is None
    assert session.assign(5, []) == Assignments(5, ())


def test_the_window_holds_back_what_does_not_fit_but_never_a_lone_batch(session):
    assert session.has_room(5000)
    session.receive(delivery(1, size=400))
    assert session.has_room(600)
    assert not session.has_room(601)
    session.settle(Accepted(1))
    assert session.has_room(5000)


def test_an_answer_to_nothing_is_nothing(session):
    assert session.settle(Accepted(99)) == []


@pytest.mark.parametrize(
    ("hello", "why"),
    [
        (replace(HELLO, agent_id=""), "'' cannot be an agent_id"),
        (replace(HELLO, agent_id="a/b"), "'a/b' cannot be an agent_id"),
        (replace(HELLO, agent_id=":scheduler"), "cannot be an agent_id"),
        (replace(HELLO, agent_id="a" * 129), "cannot be an agent_id"),
        (replace(HELLO, agent_id="a\n"), "cannot be an agent_id"),
        (replace(HELLO, node=""), "'' cannot name a node"),
        (replace(HELLO, node="n\x1b[31m"), "cannot name a node"),
        (replace(HELLO, node="é" * 127), "cannot name a node"),
        (replace(HELLO, node_ip="300.1.1.1"), "node_ip is '300.1.1.1', which is no IP address"),
        (replace(HELLO, software_version="1" * 129), "more than 128 characters"),
        (replace(HELLO, import_job="../x"), "import_job names no job"),
    ],
)
def test_a_malformed_hello_is_refused_with_a_sentence(hello, why):
    with pytest.raises(ProtocolError) as caught:
        Session().receive(hello)
    assert why in str(caught.value)
    assert not caught.value.is_precondition


def test_another_version_is_refused():
    with pytest.raises(ProtocolError, match=r"speaks version 2 .* speaks version 1") as caught:
        Session().receive(replace(HELLO, protocol_version=2))
    assert caught.value.is_precondition


def test_a_batch_before_the_hello_is_refused():
    with pytest.raises(ProtocolError, match="must be a hello"):
        Session().receive(delivery(1))


def test_a_second_hello_is_refused(session):
    with pytest.raises(ProtocolError, match="has one hello"):
        session.receive(HELLO)


@pytest.mark.parametrize(
    ("second", "why"),
    [
        (delivery(0), "has the number 0"),
        (delivery(9), "Batch 9 came after batch 7; .* 8 was to come"),
        (delivery(7), "Batch 7 came after batch 7"),
        (delivery(8, size=501), "has 501 octets; the welcome allowed 500"),
        (delivery(8, job="../x"), "Batch 8 names no job"),
    ],
)
def test_a_malformed_batch_is_refused_with_a_sentence(session, second, why):
    session.receive(delivery(7))
    with pytest.raises(ProtocolError, match=why):
        session.receive(second)


def test_an_import_delivers_to_its_own_job_only():
    session = Session()
    session.receive(replace(HELLO, import_job="capture"))
    session.receive(delivery(1, job="capture"))
    with pytest.raises(ProtocolError, match="imports into capture"):
        session.receive(delivery(2, job="checkout"))


def test_counts_of_other_agents_are_told_when_they_change():
    session = Session()
    session.receive(HELLO)
    assert session.receive(Matched("checkout", 1, 3)) == Matched("checkout", 1, 3)
    assert session.matched({("checkout", 1): 0}) == []
    assert session.matched({("checkout", 1): 4, ("b", 2): 1}) == [
        Matched("checkout", 1, 4),
        Matched("b", 2, 1),
    ]
    assert session.matched({("checkout", 1): 5, ("b", 2): 1}) == [Matched("checkout", 1, 5)]


def test_an_importer_hears_of_its_own_job_alone():
    session = Session()
    session.receive(replace(HELLO, import_job="mine"))
    assert session.matched({("checkout", 1): 4, ("mine", 1): 1}) == [Matched("mine", 1, 1)]
    with pytest.raises(ProtocolError, match="A count is for job checkout"):
        session.receive(Matched("checkout", 1, 3))


def test_a_count_of_no_job_or_before_the_hello_is_refused():
    with pytest.raises(ProtocolError, match="must be a hello, not a count"):
        Session().receive(Matched("checkout", 1, 3))
    session = Session()
    session.receive(HELLO)
    with pytest.raises(ProtocolError, match="A count names no job"):
        session.receive(Matched("../up", 1, 3))
