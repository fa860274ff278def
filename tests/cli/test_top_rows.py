"""What `tidings top` makes of what nodes say."""

from rich.console import Console, RenderableType

from cli.top import picture
from cli.top_rows import Reading, Row, row, total
from tidings.balancer.v1.balancer_pb2 import Edge
from tidings.common.v1.instance_pb2 import Instance

ROUTER = Instance(service="router", instance_id="router-1", zone="a")
EDGE = Instance(service="edge", instance_id="edge-1")
METRICS = """# TYPE router_messages_total counter
router_messages_total{{direction="in"}} {0}
router_messages_total{{direction="out"}} {1}
# TYPE router_append_queue gauge
router_append_queue 3.0
# TYPE router_link_queue gauge
router_link_queue 4.0
# TYPE router_links gauge
router_links 2.0
# TYPE loop_lag_seconds gauge
loop_lag_seconds 0.0015
# TYPE process_cpu_seconds_total counter
process_cpu_seconds_total {2}
# TYPE process_resident_memory_bytes gauge
process_resident_memory_bytes 1.048576e+08
"""


def rendered(picture: RenderableType) -> str:
    console = Console(width=100, highlight=False)
    with console.capture() as capture:
        console.print(picture)
    return capture.get()


def reading(seconds: float, into: float, out: float, cpu: float = 1.0) -> Reading:
    return Reading.parse(METRICS.format(into, out, cpu), seconds)


def test_rates_take_two_readings() -> None:
    first, second = reading(10.0, 100, 1000, 1.0), reading(12.0, 120, 1400, 1.5)
    assert row(ROUTER, "router-1", first, None, None).messages_per_second is None
    found = row(ROUTER, "router-1", second, first, None)
    assert found == Row(
        "router-1",
        "router",
        "router-1",
        "a",
        "up",
        messages_per_second=210.0,
        queued=7,
        lag_ms=1.5,
        links=2,
        cpu=0.25,
        rss_mb=100.0,
    )


def test_counters_that_began_anew() -> None:
    found = row(ROUTER, "", reading(12.0, 4, 6, 0.5), reading(10.0, 100, 1000, 5.0), None)
    assert found.messages_per_second == 5.0
    assert found.cpu == 0.25


def test_an_edge_is_as_its_balancer_says() -> None:
    quiet = Reading.parse('messages_total{direction="in"} 0.0\n', 1.0)
    edge = Edge(instance=Instance(draining=True), connections=17, loop_lag_us=2500)
    found = row(EDGE, "edge-1", quiet, None, edge)
    assert (found.state, found.connections, found.lag_ms) == ("draining", 17, 2.5)
    assert row(EDGE, "edge-1", quiet, None, None).state == "up"


def test_one_that_does_not_answer_is_away() -> None:
    found = row(EDGE, "edge-1", None, reading(1.0, 1, 1), Edge(connections=5))
    assert (found.state, found.connections, found.messages_per_second) == ("away", 5, None)


def test_the_sum_is_what_edges_do() -> None:
    rows = [
        Row("e1", "edge", "edge-1", "", "up", connections=3, messages_per_second=1.5, notifications_per_second=2.0),
        Row("e2", "edge", "edge-2", "", "away", connections=4),
        Row("s1", "store", "store-1", "", "up", dead_letters=4),
        Row("s2", "store", "store-2", "", "up", dead_letters=3),
        Row("r1", "router", "router-1", "", "up", messages_per_second=100.0),
    ]
    assert total(rows) == {
        "connections": 7,
        "messages_per_second": 1.5,
        "notifications_per_second": 2.0,
        "dead_letters": 4,
        "away": 1,
    }
    said = rendered(picture(rows))
    assert "5 nodes  7 connections  1.5 messages/s" in said
    assert "4 dead letters" in said
    assert "1 away" in said
    assert "zone" not in said
    assert "zone" in rendered(picture([Row("e1", "edge", "edge-1", "west", "up")]))
