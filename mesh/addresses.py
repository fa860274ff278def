"""Client addresses: whose request it is behind proxies, and what counts as one address."""

import ipaddress
from functools import lru_cache

from aiohttp import web

IPV6_SUBSCRIBER_BITS = 64  # one subscriber commands a whole /64, so a cap per single IPv6 address would cap nobody


def caller(request: web.BaseRequest, proxies: int) -> str:
    """As `client_address`, from a request."""
    return client_address(request.remote or "", ",".join(request.headers.getall("X-Forwarded-For", ())), proxies)


def client_address(peer: str, forwarded_for: str, proxies: int) -> str:
    """The client's address.

    Args:
        peer: the address at the other end of the socket.
        forwarded_for: X-Forwarded-For, all such headers joined by commas; each proxy appended whom it was called by.
        proxies: how many proxies of ours stand in front. What lies further left the client may have invented.
    """
    entries = [entry.strip() for entry in forwarded_for.split(",") if entry.strip()]
    if not 0 < proxies <= len(entries):
        return peer  # no proxy, or the caller went round one
    entry = _without_port(entries[-proxies])
    return entry if _parse(entry) is not None else peer


@lru_cache(4_096)  # a client's address is asked for several times on its way in, and many share that of a proxy
def network(address: str) -> str:
    """What counts as one address: an IPv4 address, or an IPv6 /64; anything else stays as it is."""
    parsed = _parse(address)
    if isinstance(parsed, ipaddress.IPv6Address):
        return str(ipaddress.IPv6Network((int(parsed), IPV6_SUBSCRIBER_BITS), strict=False))
    return address if parsed is None else str(parsed)


def _parse(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        parsed = ipaddress.ip_address(text.partition("%")[0])  # a zone index is of the machine, not of the client
    except ValueError:
        return None
    mapped = getattr(parsed, "ipv4_mapped", None)
    return parsed if mapped is None else mapped


def _without_port(entry: str) -> str:
    if entry.startswith("["):
        return entry[1:].partition("]")[0]
    return entry.partition(":")[0] if entry.count(":") == 1 else entry
