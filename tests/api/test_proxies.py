from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.api.proxies import TrustedProxies


@pytest.mark.parametrize(
    ("trusted", "peer", "forwarded", "client"),
    [
        (["10.0.0.0/8"], "10.0.0.1", ["203.0.113.7"], "203.0.113.7"),
        (["10.0.0.0/8"], "10.0.0.1", ["1.1.1.1, 203.0.113.7", "10.2.2.2"], "203.0.113.7"),
        (["10.0.0.0/8"], "10.0.0.1", ["10.3.3.3, 10.2.2.2"], "10.3.3.3"),
        (["10.0.0.0/8"], "192.0.2.1", ["203.0.113.7"], "192.0.2.1"),
        (["10.0.0.0/8"], "10.0.0.1", ["203.0.113.7, unknown"], "10.0.0.1"),
        (["10.0.0.0/8"], "10.0.0.1", ["203.0.113.7:4711"], "203.0.113.7"),
        (["::1"], "::1", ["[2001:db8::1]:4711"], "2001:db8::1"),
        (["10.0.0.0/8"], "::ffff:10.0.0.1", ["203.0.113.7"], "203.0.113.7"),
        (["*"], "testclient", ["1.1.1.1, 203.0.113.7"], "1.1.1.1"),
        (["10.0.0.0/8"], "10.0.0.1", [""], "10.0.0.1"),
        (["10.0.0.0/8"], "10.0.0.1", [], "10.0.0.1"),
    ],
)
def test_the_walk_ends_at_the_first_that_is_not_trusted(
    trusted: list[str], peer: str, forwarded: list[str], client: str
) -> None:
    assert TrustedProxies(trusted).client(peer, ",".join(forwarded)) == client


@given(st.lists(st.ip_addresses().map(str) | st.text(), max_size=5), st.ip_addresses().map(str))
def test_a_stranger_is_never_believed(forwarded: list[str], peer: str) -> None:
    assert TrustedProxies([]).client(peer, ",".join(forwarded)) == peer
    assert not TrustedProxies([])


def test_a_mistake_is_told() -> None:
    with pytest.raises(ValueError, match="loadbalancer"):
        TrustedProxies(["loadbalancer"])
