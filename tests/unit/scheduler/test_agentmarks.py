from recordings import layout
from services.scheduler import agentmarks
from services.scheduler.agentmarks import AgentMarks


def loaded(folder):
    marks = AgentMarks(folder)
    marks.load()
    return marks


def test_an_unknown_agent_has_settled_nothing(tmp_path):
    assert loaded(tmp_path / "agents").settled("a") == 0


def test_settled_is_what_has_no_batch_under_way_before_it(tmp_path):
    marks = loaded(tmp_path)
    for sequence in (1, 2, 3):
        marks.begin("a", sequence)
    marks.end("a", 2)
    assert marks.settled("a") == 0
    marks.end("a", 1)
    assert marks.settled("a") == 2
    marks.end("a", 3)
    assert marks.settled("a") == 3


def test_a_batch_that_was_sent_twice_is_settled_with_the_second(tmp_path):
    marks = loaded(tmp_path)
    marks.begin("a", 1)
    marks.begin("a", 1)
    marks.end("a", 1)
    assert marks.settled("a") == 0
    marks.end("a", 1)
    assert marks.settled("a") == 1


def test_an_agent_may_begin_anywhere(tmp_path):
    marks = loaded(tmp_path)
    marks.begin("a", 41)
    marks.end("a", 41)
    assert marks.settled("a") == 41


def test_what_was_found_on_disk_goes_on_without_holes_only(tmp_path):
    marks = loaded(tmp_path)
    marks.learn("a", 3, {1, 4, 5, 7})
    assert marks.settled("a") == 5


def test_what_is_kept_survives(tmp_path):
    marks = loaded(tmp_path)
    marks.learn("a", 7, ())
    marks.learn("b", 9, ())
    marks.keep(["a"])
    marks.learn("a", 8, ())
    marks.keep(["a"])
    assert loaded(tmp_path).settled("a") == 8  # as after a kill
    marks.close()
    again = loaded(tmp_path)
    assert (again.settled("a"), again.settled("b")) == (8, 9)
    assert len(layout.journals(tmp_path)) == 1


def test_the_file_does_not_grow_for_ever(tmp_path, monkeypatch):
    monkeypatch.setattr(agentmarks, "COMPACT_BYTES", 1000)
    marks = loaded(tmp_path)
    for sequence in range(1, 200):
        marks.learn("a", sequence, ())
        marks.keep(["a"])
    marks.close()
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) < 1200
    assert loaded(tmp_path).settled("a") == 199


def test_the_oldest_agents_are_forgotten(tmp_path, monkeypatch):
    monkeypatch.setattr(agentmarks, "MOST_AGENTS", 3)
    marks = loaded(tmp_path)
    for name in "abcd":
        marks.learn(name, 5, ())
    assert [marks.settled(name) for name in "abcd"] == [0, 5, 5, 5]
