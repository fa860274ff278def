"""Which edge a word names."""

import pytest

from cli.edges import find, name
from cli.failure import CommandError
from tidings.balancer.v1.balancer_pb2 import Edge
from tidings.common.v1.instance_pb2 import Instance

URLS = ["http://127.0.0.1:8081", "http://127.0.0.1:8082"]


def edge(instance_id: str, url: str) -> Edge:
    return Edge(instance=Instance(service="edge", instance_id=instance_id, public_url=url))


EDGES = [edge("edge-2abcx", "ws://chat.example.com:8081"), edge("edge-2abcy8", "ws://chat.example.com:8082")]


@pytest.mark.parametrize(
    ("word", "found"),
    [
        ("edge-2abcx", 0),
        ("cx", 0),
        ("edge-1", 0),
        ("edge-2", 1),  # its name, though the ids of both begin so
        ("8082", 1),
        ("chat.example.com:8082", 1),
        ("ws://chat.example.com:8081", 0),
        ("8", 1),  # only in one id; ports are named whole
    ],
)
def test_words(word: str, found: int) -> None:
    assert find(EDGES, word, URLS) is EDGES[found]


@pytest.mark.parametrize("edges", [EDGES, EDGES[:1]])
def test_an_empty_word_names_none(edges: list[Edge]) -> None:
    with pytest.raises(CommandError, match="no edge ''"):
        find(edges, "")


@pytest.mark.parametrize(("word", "said"), [("2abc", "names 2 edges"), ("edge-3", "no edge 'edge-3'.*edge-2abcx at ws://")])
def test_words_that_name_none_or_several(word: str, said: str) -> None:
    with pytest.raises(CommandError, match=said):
        find(EDGES, word, URLS)
    with pytest.raises(CommandError, match="there are: none"):
        find([], word)


def test_names() -> None:
    assert [name(one.instance.public_url, URLS) for one in EDGES] == ["edge-1", "edge-2"]
    assert name("ws://h:8081", URLS[:1]) == "edge"
    assert name("ws://h:1", URLS) == name("ws://h", URLS) == ""
