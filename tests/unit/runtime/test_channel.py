import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from services.runtime.channel import open_channel
from services.runtime.server import serve


def test_a_channel_ignores_proxies_and_finds_a_server_that_came_back(monkeypatch):
    monkeypatch.setenv("http_proxy", "http://192.0.2.1:1")
    monkeypatch.setenv("grpc_proxy", "http://192.0.2.1:1")
    server = serve("127.0.0.1:0", lambda _: [])
    with open_channel(server.address) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        question = health_pb2.HealthCheckRequest()
        assert health.Check(question, timeout=20).status == 1
        server.stop(0)
        with pytest.raises(grpc.RpcError):
            health.Check(question, timeout=20)
        again = serve(server.address, lambda _: [])
        assert health.Check(question, timeout=20, wait_for_ready=True).status == 1
        again.stop(0)
