"""What the tests of the capture engine share."""

from tests.integration.capture.veth import namespace

__all__ = ["namespace"]
