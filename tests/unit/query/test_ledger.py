from typing import Any

from services.query import ledger
from services.query.plan import Window


def sources(disk: Any, name: str = "web") -> list[Any]:
    return [disk.catalog().open(name).source("losses")]


def test_losses_of_files_and_journal_in_the_order_of_time(disk: Any) -> None:
    start = disk.start_ns
    run = disk.run("web")
    run.append(losses=[{"start_time": start + 5, "end_time": start + 6}])
    run.turn()
    run.append(losses=[{"start_time": start, "end_time": start + 1, "kind": "gap"}])
    found = ledger.losses(sources(disk))
    assert [(loss.kind, loss.start_ns) for loss in found] == [
        ("gap", start),
        ("kernel_drop", start + 5),
    ]


def test_only_what_touches_the_window(disk: Any) -> None:
    start = disk.start_ns
    disk.run("web").append(losses=[{"start_time": start, "end_time": start + 10}])
    source = sources(disk)
    assert len(ledger.losses(source, Window(start + 10, start + 20))) == 1
    assert len(ledger.losses(source, Window(None, start + 1))) == 1
    assert ledger.losses(source, Window(start + 11, None)) == []
    assert ledger.losses(source, Window(None, start)) == []


def test_a_long_ledger_is_added_up_by_node_and_kind(disk: Any) -> None:
    start = disk.start_ns
    rows = [
        {"kind": "gap", "packets": 0, "bytes": 2, "start_time": start + i, "end_time": start + i}
        for i in range(ledger.MAX_ROWS)
    ]
    disk.run("web").append(losses=[*rows, {}])
    gap, drop = sorted(ledger.losses(sources(disk)), key=lambda loss: loss.bytes, reverse=True)
    assert (gap.bytes, gap.detail) == (2 * ledger.MAX_ROWS, f"{ledger.MAX_ROWS} losses, added up.")
    assert (gap.start_ns, gap.end_ns) == (start, start + ledger.MAX_ROWS - 1)
    assert (drop.packets, drop.detail) == (3, "The ring was full.")


def test_a_loss_is_a_sentence(disk: Any) -> None:
    disk.run("web").append(losses=[{}])
    assert ledger.losses(sources(disk))[0].sentence() == (
        "kernel_drop in web on node-1, 2025-11-22T23:12:00.123+00:00 to "
        "2025-11-22T23:12:00.123+00:00: the kernel dropped packets because the ring was full "
        "(3 packets). The ring was full."
    )
