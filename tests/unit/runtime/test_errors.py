"""What errors.py does over the wire is in test_server.py; here is what no server of ours sends."""

import grpc

from services.runtime.errors import read_violations


class Odd(grpc.RpcError):
    """An error that another implementation made, whose details contradict its code."""

    def code(self):
        return grpc.StatusCode.INTERNAL

    def details(self):
        return "x"

    def trailing_metadata(self):
        return (("grpc-status-details-bin", b"\x08\x03\x12\x01y"),)


def test_details_that_contradict_the_status_are_no_violations():
    assert read_violations(Odd()) == []
