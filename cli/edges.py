"""Which edge a word on the command line names: its id, a part of the id that no other has, its name in `tidings up` (`edge-2`), or
the host:port, or port, that clients reach it under. Pure.
"""

from collections.abc import Sequence
from urllib.parse import urlsplit

from cli.failure import CommandError
from tidings.balancer.v1.balancer_pb2 import Edge


def find(edges: Sequence[Edge], word: str, urls: Sequence[str] = ()) -> Edge:
    """The edge that a word names.

    Args:
        edges: those there are.
        word: see the module.
        urls: the base URLs of the edges of `tidings up`, in the order of their names.

    Raises:
        CommandError: it names none, or several.
    """
    found = [edge for edge in edges if _named(edge, word, urls)] or [edge for edge in edges if _part(edge, word)]
    if len(found) == 1:
        return found[0]
    listed = "; ".join(f"{edge.instance.instance_id} at {edge.instance.public_url}" for edge in found or edges) or "none"
    if found:
        raise CommandError(f"{word!r} names {len(found)} edges", f"say more of the one you mean: {listed}")
    raise CommandError(f"no edge {word!r} reports to the balancers", f"there are: {listed}")


def name(public_url: str, urls: Sequence[str]) -> str:
    """What `tidings up` calls the edge at a URL; empty when it has none by that port."""
    places = [port(url) for url in urls]
    place = port(public_url)
    if place is None or place not in places:
        return ""
    return "edge" if len(places) == 1 else f"edge-{places.index(place) + 1}"


def _named(edge: Edge, word: str, urls: Sequence[str]) -> bool:
    url = edge.instance.public_url
    places = {edge.instance.instance_id, url, urlsplit(url).netloc, str(port(url)), name(url, urls)}
    return bool(word) and word in places


def _part(edge: Edge, word: str) -> bool:
    return bool(word) and word in edge.instance.instance_id


def port(url: str) -> int | None:
    """The port in a URL; None when it names none."""
    return urlsplit(url).port
