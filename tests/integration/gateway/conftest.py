"""The services that clients ask."""

from tests.unit.gateway.conftest import served as served
