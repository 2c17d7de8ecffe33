# mypy: ignore-errors
"""Which network a packet was in, besides its addresses: VLANs and a tunnel, in one word.

decode and tunnels write the word, flows keeps streams of different networks apart by it, calls
shows it. Bits 0 to 31 hold the tunnel's id, 32 to 35 its kind, 36 to 47 the first VLAN, 48 to 59
the second; 0 is a packet without any of them. Of tunnels in tunnels the innermost with an
id counts, of VLANs the two outermost.
"""

import numpy as np
import pyarrow as pa

from services.capture.kernel import kernel

NO_NETWORK = 0

VXLAN, GENEVE, PPPOE = 1, 2, 3
GRE_KEY, ERSPAN = 4, 5
IPIP, GRE, MPLS, OVN = 6, 7, 8, 9
"""Kinds of tunnel. The first have an id that both directions share. A key of GRE or a session of
ERSPAN may differ: mirrors tell the direction by it. The last have no id: GRE without a key, MPLS,
whose labels hold for one direction, and OVN's Geneve, whose id says where a packet goes."""

LABELS = {
    VXLAN: "vxlan", GENEVE: "geneve", PPPOE: "pppoe", GRE_KEY: "gre", ERSPAN: "erspan",
    IPIP: "ipip", GRE: "gre", MPLS: "mpls", OVN: "ovn",
}  # fmt: skip

ID_BITS, KIND_MASK = 32, 0xF
TUNNEL_MASK = (1 << 36) - 1
FIRST_VLAN, SECOND_VLAN = 36, 48
VLAN_MASK = 0xFFF  # the rest of a tag is priority


@kernel
def with_vlan(network, tag):
    """Return the word with one VLAN more. Id 0 is a priority only."""
    vlan = tag & VLAN_MASK
    if vlan == 0:
        return network
    if network >> FIRST_VLAN & VLAN_MASK == 0:
        return network | vlan << FIRST_VLAN
    if network >> SECOND_VLAN & VLAN_MASK == 0:
        return network | vlan << SECOND_VLAN
    return network


@kernel
def has_shared_id(network):
    """Whether the tunnel's id is the same in both directions."""
    kind = network >> ID_BITS & KIND_MASK
    return kind != 0 and kind < GRE_KEY


@kernel
def with_tunnel(network, kind, number):
    """Return the word inside a tunnel; one without a shared id does not hide one that has it."""
    if kind >= GRE_KEY and has_shared_id(network):
        return network
    return network & ~TUNNEL_MASK | kind << ID_BITS | number


@kernel
def flow_key(network):
    """What keeps flows of the same five-tuple apart: VLANs, and the tunnel by a shared id."""
    return np.uint64(network if has_shared_id(network) else network & ~TUNNEL_MASK)


def vlan_texts(networks: np.ndarray) -> pa.Array:
    """Return VLANs as Linux names interfaces: "5", "100.5" with the outer one first, or null."""
    return pa.array(
        [
            ".".join(str(vlan) for vlan in vlans if vlan) or None
            for vlans in (
                (word >> FIRST_VLAN & VLAN_MASK, word >> SECOND_VLAN & VLAN_MASK)
                for word in networks.tolist()
            )
        ],
        pa.string(),
    )


def tunnel_texts(networks: np.ndarray) -> pa.Array:
    """Return tunnels as "vxlan 42", "ipip" where there is no id, or null."""
    texts = []
    for word in networks.tolist():
        kind = word >> ID_BITS & KIND_MASK
        label = LABELS.get(kind)
        texts.append(f"{label} {word & 0xFFFFFFFF}" if label and kind < IPIP else label)
    return pa.array(texts, pa.string())
