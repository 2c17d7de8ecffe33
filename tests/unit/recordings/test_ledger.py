import pyarrow as pa
import pytest

from recordings import ledger
from recordings.ledger import Amount, Ledger, Lost, Tally
from recordings.manifest import Manifest
from recordings.schema import LOSSES, PACKETS, TALLIES

PACKET = {"stream": "a", "time": 1, "link_type": 1, "frame": b""}
LOSS = {"node_name": "n", "start_time": 1, "end_time": 2, "stream": None, "detail": ""}


def packets(*lengths: int) -> pa.RecordBatch:
    rows = [{**PACKET, "node_name": "n", "original_length": length} for length in lengths]
    return pa.RecordBatch.from_pylist(rows, schema=PACKETS)


def losses(*found: tuple[str, int, int]) -> pa.RecordBatch:
    rows = [{**LOSS, "kind": kind, "packets": p, "bytes": b} for kind, p, b in found]
    return pa.RecordBatch.from_pylist(rows, schema=LOSSES)


def tallies(*found: Tally) -> pa.RecordBatch:
    return pa.RecordBatch.from_pylist(ledger.rows(found), schema=TALLIES)


def tally(agent: str, begin: int, end: int, seen: int, matched: int, node: str = "n") -> Tally:
    return Tally(agent, node, begin, end, Amount(seen, 10 * seen), Amount(matched, 10 * matched))


def test_rows_of_nodes_add_up() -> None:
    found = Ledger()
    found.add("packets", [packets(60, 40), packets(1)], "n", "a")
    found.add("losses", [losses(("gap", 0, 7), ("gap", -5, 3), ("new_kind", 2, 2))], "n", "a")
    found.add("tallies", [tallies(tally("", 5, 9, 4, 3))], "n", "a")
    found.add("packets", [packets(9)], "m", "b")
    first, second = found.nodes()
    assert (first.node, first.stored, first.seen) == ("m", (1, 9), (0, 0))
    assert (second.node, second.stored) == ("n", (3, 101))
    assert second.lost == {"gap": Lost(2, 0, 10), "other": Lost(1, 2, 2)}
    assert (second.begin_ns, second.end_ns) == (5, 9)
    assert (second.seen, second.matched) == ((4, 40), (3, 30))


def test_a_later_tally_replaces_the_one_before_and_another_process_adds_to_it() -> None:
    found = Ledger()
    for told in (tally("", 5, 9, 4, 3), tally("", 5, 12, 9, 3), tally("", 5, 10, 5, 3)):
        found.add("tallies", [tallies(told)], "n", "a")
    found.add("tallies", [tallies(tally("", 20, 25, 2, 1))], "n", "a")
    (node,) = found.nodes()
    assert (node.seen, node.matched) == ((11, 110), (4, 40))
    assert (node.begin_ns, node.end_ns) == (5, 25)


def test_an_agent_cannot_speak_for_another_one() -> None:
    found = Ledger()
    found.add("tallies", [tallies(tally("b", 5, 9, 4, 3, "other"))], "n", "a")
    assert list(found.tallies) == [("a", "n", 5)]
    found.add("tallies", [tallies(tally("b", 5, 9, 4, 3, "other"))], "", "")
    assert list(found.tallies) == [("a", "n", 5), ("b", "other", 5)]


def test_very_many_processes_are_added_up_by_node() -> None:
    found = Ledger()
    many = ledger.MOST_TALLIES + 10
    for number in range(many):
        found.tell(tally(f"a{number}", number + 1, number + 2, 2, 1))
    assert len(found.tallies) <= ledger.MOST_TALLIES + 1
    assert found.nodes()[0].seen == (2 * many, 20 * many)
    assert found.nodes()[0].matched == (many, 10 * many)


def test_ledgers_that_are_merged_are_as_one() -> None:
    first, second = Ledger(), Ledger()
    for found in (first, second):
        found.add("packets", [packets(60)], "n", "a")
        found.add("losses", [losses(("gap", 1, 7))], "n", "a")
    first.tell(tally("a", 5, 9, 4, 3))
    second.tell(tally("a", 5, 12, 8, 3))
    copy = first.copy()
    copy.merge(second)
    (node,) = copy.nodes()
    assert (node.stored, node.lost["gap"], node.seen) == ((2, 120), (2, 2, 14), (8, 80))
    assert first.nodes()[0].stored == (1, 60)


def test_a_manifest_has_it_and_one_of_before_has_none(tmp_path) -> None:
    found = Ledger()
    found.add("packets", [packets(60)], "n", "a")
    found.add("losses", [losses(("gap", 1, 7))], "n", "a")
    found.tell(tally("a", 5, 9, 4, 3))
    manifest = Manifest("checkout", 1, counts={"packets": 1}, ledger=found)
    manifest.save(tmp_path)
    assert Manifest.load(tmp_path).ledger == found
    assert Ledger.decode(None).nodes() == []
    found.merge(Ledger.decode(None))
    assert (found.nodes(), found.encode()) == ([], None)


@pytest.mark.parametrize(
    "bad",
    [
        [],
        {},
        {"tallies": [], "stored": {"n": [1]}, "lost": {}},
        {"tallies": [], "stored": {"n": [1, -1]}, "lost": {}},
        {"tallies": [["a", "n", 1]], "stored": {}, "lost": {}},
        {"tallies": [], "stored": {}, "lost": {"n": {"gap": "123"}}},
    ],
)
def test_what_is_no_ledger_is_a_sentence(bad: object) -> None:
    with pytest.raises(ValueError, match="its ledger is not one"):
        Ledger.decode(bad)
