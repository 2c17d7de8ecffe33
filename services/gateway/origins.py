"""Which web pages may call. Called by gateway, before anything else is done for a request.

A page of any site can have a browser send requests to this machine and to names that lead here.
Without CORS such a page cannot read answers, but what it sends would be done, and a name of its own
that leads to a local address (DNS rebinding) would make it one of ours.
"""

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from services.gateway.problems import ProblemError

ANY = "*"

MAX_AGE_SECONDS = 600
"""How long a browser remembers that it may: what Chromium and Firefox cap it at is longer."""

ALLOWED_HEADERS = "accept, content-type, grpc-timeout, last-event-id"
"""What a page may send beside what it always may."""

EXPOSED_HEADERS = "content-disposition, location"


@dataclass(frozen=True, slots=True)
class Origins:
    """Names by which this server is called, and origins whose pages may call it."""

    hosts: Sequence[str] = ()
    """Beside addresses and localhost; "*" is any."""
    allowed: Sequence[str] = ()
    """As in https://shop.example.com; "*" is any. None: no page of another origin."""

    def check(self, host: str, origin: str) -> list[tuple[str, str]]:
        """Return the header fields for an answer. Raises ProblemError when a page must not call."""
        if not self._is_ours(host):
            raise ProblemError(
                421,
                "This server is not known by the name in Host; call it by its address, or start "
                "it with --hosts and that name.",
                "PERMISSION_DENIED",
            )
        if not origin:
            return [("vary", "origin")] if self.allowed else []
        if ANY not in self.allowed and origin not in self.allowed:
            if _is_same(host, origin):
                return []
            raise ProblemError(
                403,
                "Pages of this origin may not call this server; --cors-origins lists those that "
                "may.",
                "PERMISSION_DENIED",
            )
        return [
            ("access-control-allow-origin", origin),
            ("access-control-allow-headers", ALLOWED_HEADERS),
            ("access-control-expose-headers", EXPOSED_HEADERS),
            ("access-control-max-age", str(MAX_AGE_SECONDS)),
            ("vary", "origin"),
        ]

    def _is_ours(self, host: str) -> bool:
        # Only HTTP/1.0 has no Host, and no browser speaks it.
        if not host or ANY in self.hosts:
            return True
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            return False
        return name == "localhost" or name in self.hosts or _is_address(name)


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _is_same(host: str, origin: str) -> bool:
    """Tell whether a page is of this server, as behind a proxy that has both under one name."""
    return origin.partition("://")[2] == host
