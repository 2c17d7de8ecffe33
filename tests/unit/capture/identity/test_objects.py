"""What is kept of objects, also of ones that are nothing like what they should be."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.capture.identity.objects import (
    key_of,
    read_namespace,
    read_node,
    read_pod,
    read_service,
    read_slice,
)
from tests.apiserver import endpoints, node, pod, service

READERS = (read_pod, read_service, read_slice, read_node, read_namespace)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)


def test_of_a_pod_is_kept_what_names_it():
    found = pod("cart-1", "10.1.0.5", labels={"app": "cart"}, start="2026-05-01T12:00:00Z")
    found["status"]["podIPs"].append({"ip": "fd00::5"})
    read = read_pod(found, "node-1")
    assert (read.name, read.namespace, read.node) == ("cart-1", "shop", "node-1")
    assert read.addresses == ("10.1.0.5", "fd00::5")
    assert read.labels == '{"app":"cart"}'
    assert read.begin_ns == 1_777_636_800 * 10**9
    assert read.end_ns is None


def test_only_containers_of_the_own_node_are_kept():
    found = pod("cart-1", "10.1.0.5")
    found["status"]["containerStatuses"] = [{"containerID": "containerd://abc"}]
    assert read_pod(found, "node-1").containers == ("abc",)
    assert read_pod(found, "node-2").containers == ()


@pytest.mark.parametrize("reader", READERS)
def test_an_object_without_a_name_is_refused(reader):
    with pytest.raises(ValueError, match="has no"):
        reader({"metadata": {"labels": {}}}, "node-1")


@given(data=st.data())
@pytest.mark.parametrize("make", [pod, service, endpoints, node])
def test_fields_of_any_kind_do_no_harm(make, data):
    made = make("x", "10.0.0.1") if make is not endpoints else make("x", "y", pod("p", "10.0.0.2"))
    parts = [part for part in made.values() if isinstance(part, dict)]
    for part in parts:
        for key in data.draw(st.sets(st.sampled_from(sorted(part)))):
            part[key] = data.draw(JSON)
    for reader in READERS:
        try:
            key_of(made)
            hash(reader(made, "node-1"))
        except ValueError:
            pass
