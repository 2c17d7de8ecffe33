"""Every RPC has a path, and a path is one RPC."""

from __future__ import annotations

import pytest
from recorder.v1 import jobs_pb2, query_pb2

from services.gateway.routes import PREFIX, ROUTES, find


def test_every_rpc_of_both_services_has_a_path() -> None:
    files = (jobs_pb2.DESCRIPTOR, query_pb2.DESCRIPTOR)
    there = {
        method.full_name
        for file in files
        for service in file.services_by_name.values()
        for method in service.methods
    }
    assert {route.rpc.full_name for route in ROUTES} == there


def test_what_changes_something_is_not_had_by_get() -> None:
    changing = ("Create", "Stop", "Extend", "Pin", "Unpin", "Delete")
    methods = {r.rpc.name: r.method for r in ROUTES if r.rpc.name.startswith(changing)}
    assert len(methods) == len(changing)
    assert "GET" not in methods.values()


@pytest.mark.parametrize(
    ("path", "rpcs", "values"),
    [
        ("/jobs", {"GET": "ListJobs", "POST": "CreateJob"}, {}),
        ("/jobs/shop", {"GET": "GetJob", "DELETE": "DeleteJob"}, {"name": "shop"}),
        ("/jobs/shop:stop", {"POST": "StopJob"}, {"name": "shop"}),
        ("/jobs:watch", {"GET": "WatchJobs"}, {}),
        ("/entries/node-1/00a1-7", {"GET": "GetEntry"}, {"id": "node-1/00a1-7"}),
        ("/entries/a:b/1-1", {"GET": "GetEntry"}, {"id": "a:b/1-1"}),
        ("/jobs/", {}, {}),
        ("/jobs/a/b", {}, {}),
        ("/jobs/a:burn", {}, {}),
        ("/entries/", {}, {}),
        ("/nothing", {}, {}),
    ],
)
def test_what_is_at_a_path(path: str, rpcs: dict[str, str], values: dict[str, str]) -> None:
    found = find(PREFIX + path)
    assert {method: route.rpc.name for method, route in found.routes.items()} == rpcs
    assert found.values == values


def test_no_path_fits_two_rows() -> None:
    for route in ROUTES:
        path = route.address.replace("{name}", "x").replace("{id}", "x")
        assert find(path).routes[route.method] is route
