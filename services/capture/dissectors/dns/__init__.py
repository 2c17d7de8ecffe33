"""DNS over UDP and TCP, mDNS and LLMNR (RFC 1035, 6891, 7766, 6762, 4795).

`message` reads where things lie, `exchange` pairs queries and responses, `records` and `data` write
the JSON of an entry's request and response, `entries` is what the pipeline calls.
"""

from services.capture.dissectors.dns.detect import looks_like_dns
from services.capture.dissectors.dns.entries import Dns, DnsCalls, DnsOptions
from services.capture.dissectors.dns.tcp import DnsStream, DnsStreams

__all__ = ["Dns", "DnsCalls", "DnsOptions", "DnsStream", "DnsStreams", "looks_like_dns"]
