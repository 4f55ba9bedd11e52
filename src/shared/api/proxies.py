"""Who the client is, when proxies stand between."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


class TrustedProxies:
    """The proxies whose ``X-Forwarded-For`` is believed.

    Args:
        proxies: addresses and networks, such as ``10.0.0.0/8``; ``*`` trusts every peer.

    Raises:
        ValueError: an entry that is neither.
    """

    def __init__(self, proxies: Iterable[str]) -> None:
        entries = list(proxies)
        self._everyone = "*" in entries
        self._networks = [ip_network(entry, strict=False) for entry in entries if entry != "*"]

    def __bool__(self) -> bool:
        return self._everyone or bool(self._networks)

    def __contains__(self, host: str) -> bool:
        address = parse_address(host)
        return self._everyone or (
            address is not None and any(address in network for network in self._networks)
        )

    def client(self, peer: str, forwarded_for: str) -> str:
        """Walk back from ``peer`` over trusted proxies to the first address that is not one.

        Each proxy appends the address it was called from, so only what trusted ones appended is
        believed. An entry that is not an address ends the walk.

        Args:
            peer: the address the connection comes from.
            forwarded_for: the value of ``X-Forwarded-For``; several joined with commas.
        """
        hops = [hop.strip() for hop in forwarded_for.split(",")]
        client = peer
        while hops and client in self:
            address = parse_address(hops.pop())
            if address is None:
                break
            client = str(address)
        return client


def parse_address(text: str) -> IPv4Address | IPv6Address | None:
    """Return an address that may have a port; ``None`` if it is none."""
    try:
        address = ip_address(_without_port(text))
    except ValueError:
        return None
    # An IPv4 client of a socket that listens on both families (RFC 4291, section 2.5.5.2).
    return getattr(address, "ipv4_mapped", None) or address


def _without_port(text: str) -> str:
    if text.startswith("["):
        return text[1:].partition("]")[0]
    host, colon, _ = text.partition(":")
    return host if colon and text.count(":") == 1 else text
