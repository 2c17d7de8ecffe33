"""Names of types and codes of ICMP: https://www.iana.org/assignments/icmp-parameters, and of v6."""

# fmt: off
TYPES = {
    4: {
        0: "echo reply", 3: "destination unreachable", 4: "source quench", 5: "redirect",
        8: "echo request", 9: "router advertisement", 10: "router solicitation",
        11: "time exceeded", 12: "parameter problem", 13: "timestamp request",
        14: "timestamp reply", 15: "information request", 16: "information reply",
        17: "address mask request", 18: "address mask reply", 40: "photuris",
        42: "extended echo request", 43: "extended echo reply",
    },
    6: {
        1: "destination unreachable", 2: "packet too big", 3: "time exceeded",
        4: "parameter problem", 128: "echo request", 129: "echo reply",
        130: "multicast listener query", 131: "multicast listener report",
        132: "multicast listener done", 133: "router solicitation", 134: "router advertisement",
        135: "neighbor solicitation", 136: "neighbor advertisement", 137: "redirect",
        138: "router renumbering", 139: "node information query",
        140: "node information response", 141: "inverse neighbor discovery solicitation",
        142: "inverse neighbor discovery advertisement", 143: "multicast listener report v2",
        144: "home agent address discovery request", 145: "home agent address discovery reply",
        146: "mobile prefix solicitation", 147: "mobile prefix advertisement",
        148: "certification path solicitation", 149: "certification path advertisement",
        151: "multicast router advertisement", 152: "multicast router solicitation",
        153: "multicast router termination", 155: "RPL control",
        157: "duplicate address request", 158: "duplicate address confirmation",
        160: "extended echo request", 161: "extended echo reply",
    },
}
"""By IP's version."""

ANSWERED_BY = {
    4: {8: 0, 13: 14, 15: 16, 17: 18, 42: 43},
    6: {128: 129, 160: 161},
}
"""Types of questions that have an identifier and a sequence number, and of their answers."""

ERRORS = {4: frozenset({3, 4, 5, 11, 12}), 6: frozenset({1, 2, 3, 4})}
"""Types that quote the packet that they are about, behind eight octets."""

CODES = {
    (4, 3): {
        0: "network unreachable", 1: "host unreachable", 2: "protocol unreachable",
        3: "port unreachable", 4: "fragmentation needed", 5: "source route failed",
        6: "network unknown", 7: "host unknown", 8: "source host isolated",
        9: "network prohibited", 10: "host prohibited", 11: "network unreachable for the service",
        12: "host unreachable for the service", 13: "communication prohibited",
        14: "host precedence violation", 15: "precedence cutoff",
    },
    (4, 5): {0: "network", 1: "host", 2: "service and network", 3: "service and host"},
    (4, 11): {0: "time to live exceeded in transit", 1: "fragment reassembly time exceeded"},
    (4, 12): {0: "pointer indicates the error", 1: "missing a required option", 2: "bad length"},
    (6, 1): {
        0: "no route", 1: "communication prohibited", 2: "beyond scope of source address",
        3: "address unreachable", 4: "port unreachable", 5: "source address failed policy",
        6: "reject route", 7: "error in source routing header",
    },
    (6, 3): {0: "hop limit exceeded in transit", 1: "fragment reassembly time exceeded"},
    (6, 4): {
        0: "erroneous header field", 1: "unrecognized next header", 2: "unrecognized option",
    },
}
"""By IP's version and the type."""
# fmt: on
