"""The OpenAPI document: complete, with the protos' words, and what the running server does."""

from __future__ import annotations

import json
from typing import Any

import httpx
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.checks import negative_data_rejection, positive_data_acceptance

from services.gateway import openapi
from services.gateway.routes import ROUTES
from tests.unit.gateway.conftest import SHOP, Served

DOCUMENT: dict[str, Any] = json.loads(openapi.document())

EXAMPLES = 12
"""Requests to each of the paths, which take half a minute together."""

ENDLESS = ("WatchJobs", "ForecastJob")
"""A watch goes on until it is ended, and a forecast for up to a minute."""

MEDIA_TYPES = ("*/*", "text/event-stream", "application/vnd.apache.arrow.stream, */*;q=0.5")

schema = schemathesis.openapi.from_dict(DOCUMENT)


def test_every_route_is_there_with_a_comment(client: httpx.Client) -> None:
    assert client.get("/api/v1/openapi.json").json() == DOCUMENT
    there = {
        (method.upper(), path) for path, methods in DOCUMENT["paths"].items() for method in methods
    }
    assert there >= {(route.method, route.address) for route in ROUTES}
    operations = [each for methods in DOCUMENT["paths"].values() for each in methods.values()]
    names = [each["operationId"] for each in operations]
    assert len(names) == len(set(names))
    assert all(each["summary"] for each in operations)
    stop = DOCUMENT["paths"]["/api/v1/jobs/{name}:stop"]["post"]
    assert stop["summary"] == (
        "StopJob ends the job's current run and all later ones; what was recorded stays."
    )


def test_every_field_and_value_has_the_comment_of_the_protos() -> None:
    for name, found in DOCUMENT["components"]["schemas"].items():
        assert found["description"], name
        if "enum" in found:
            assert all(f"{value}: " in found["description"] for value in found["enum"])
    spec = DOCUMENT["components"]["schemas"]["JobSpec"]["properties"]
    assert spec["sizeLimitBytes"]["format"] == "uint64"
    assert spec["startTime"]["description"].startswith("Start time of the day")
    query = DOCUMENT["paths"]["/api/v1/query"]["get"]["parameters"]
    assert {each["name"] for each in query} == {
        "kfl", "limit", "startTime", "endTime", "follow", "format", "descending",
    }  # fmt: skip
    assert all(each["description"] for each in query)


@schema.exclude(operation_id=list(ENDLESS)).parametrize()
@settings(
    max_examples=EXAMPLES, suppress_health_check=list(HealthCheck), derandomize=True, database=None
)
def test_the_server_does_what_the_document_says(case: schemathesis.Case, served: Served) -> None:
    for fields in (case.query, case.body):
        if isinstance(fields, dict):
            fields.pop("follow", None)
            text = fields.get("kfl")
            # A text is a statement by chance once in a lifetime.
            if isinstance(text, str) and len(text) % 2 == 0:
                fields["kfl"] = SHOP
    accept = MEDIA_TYPES[len(str(case.query)) % len(MEDIA_TYPES)]
    # Not every text is a statement, and not every statement has a recording.
    excluded = [positive_data_acceptance]
    # To proto's JSON, null is what is not there.
    if isinstance(case.body, dict) and "null" in json.dumps(case.body):
        excluded.append(negative_data_rejection)
    case.call_and_validate(
        base_url=served.url,
        headers={"accept": accept},
        timeout=30,
        excluded_checks=excluded,
    )
