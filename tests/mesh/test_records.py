"""What a service tells the registry: where others reach it, also through a mapped port."""

from typing import Any

import pytest

from mesh import records
from mesh.settings import ServiceSettings


@pytest.mark.parametrize(
    ("settings", "grpc_port", "address"),
    [
        ({}, 9093, "127.0.0.1:9093"),
        ({"host": "0.0.0.0", "advertise": "router.example"}, 9093, "router.example:9093"),
        ({"advertise_port": 1234}, 9093, "127.0.0.1:1234"),
        ({"advertise": "router.example", "advertise_port": 1234}, 9093, "router.example:1234"),
        ({"advertise_port": 1234}, 0, ""),
    ],
)
def test_others_are_told_the_advertised_place(settings: dict[str, Any], grpc_port: int, address: str) -> None:
    assert records.instance("router", ServiceSettings(**settings), "router-1", grpc_port=grpc_port).grpc_address == address


def test_a_record_says_all_that_is_known_of_a_process() -> None:
    settings = ServiceSettings(zone="north", admin_url="http://127.0.0.1:7001")
    record = records.instance("edge", settings, "edge-1", public_url="wss://edge.example", capacity=500)
    assert record.HasField("start_time")
    assert record.version
    record.ClearField("start_time")
    record.ClearField("version")
    assert record == type(record)(
        service="edge",
        instance_id="edge-1",
        public_url="wss://edge.example",
        zone="north",
        capacity=500,
        admin_url="http://127.0.0.1:7001",
    )
