"""The table of five-tuples: what is in it is found, whatever came and went around it."""

import numpy as np

from services.capture import flows as table
from services.capture.flows import ROWS_FREE, ROWS_USED, find_or_add_flow, new_flows, remove_flow


def endpoint(number):
    return (np.uint64(0), np.uint64(number), np.uint64(80))


def test_a_flow_is_found_after_others_around_it_were_removed():
    flows = new_flows(256)
    random = np.random.default_rng(1)
    rows = {}  # the table as a dictionary has it
    for _ in range(20_000):
        address = int(random.integers(1, 400))
        if address not in rows and len(rows) == 256:
            address = next(iter(rows))
        if address in rows and random.random() < 0.5:
            remove_flow(flows, rows.pop(address))
            continue
        number = find_or_add_flow(flows, endpoint(0), endpoint(address), 6, 0)
        assert rows.setdefault(address, number) == number
        assert flows.rows["used"].sum() == len(rows)
    assert flows.counts[ROWS_USED] - flows.counts[ROWS_FREE] == len(rows)
    assert (flows.slots != table.EMPTY_SLOT).sum() == len(rows)
