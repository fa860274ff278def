"""deploy/compose.yaml, as far as it can be read: each service takes what it is told, and what it is told of others is there."""

import re
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from balancer.settings import BalancerSettings
from edge.settings import EdgeSettings
from mesh.settings import ServiceSettings
from router.settings import RouterSettings
from scheduler.settings import SchedulerSettings
from store.settings import StoreSettings
from tagsvc.settings import TagsvcSettings

DEPLOY = Path(__file__).parents[2] / "deploy"
SETTINGS: dict[str, type[ServiceSettings]] = {
    "store": StoreSettings,
    "tagsvc": TagsvcSettings,
    "router": RouterSettings,
    "scheduler": SchedulerSettings,
    "balancer": BalancerSettings,
    "edge": EdgeSettings,
}
GIVEN = {"POSTGRES_PASSWORD": "p" * 8, "TOKEN_SECRET": "t" * 64, "TICKET_SECRET": "k" * 64, "PUBLIC_HOST": "chat.example.com"}
_VARIABLE = re.compile(r"\$\{(\w+)(?::[-?][^}]*)?\}")


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    """The services of the file, its variables put in."""
    text = _VARIABLE.sub(lambda found: GIVEN[found[1]], (DEPLOY / "compose.yaml").read_text())
    return dict(yaml.safe_load(text)["services"])


def ours(services: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Those that are services of the mesh, by name."""
    return {name: one for name, one in services.items() if one["image"] == "tidings"}


def settings(one: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> ServiceSettings:
    """What a container's process makes of its command and environment."""
    with monkeypatch.context() as patch:
        for name, value in one["environment"].items():
            patch.setenv(name, value)
        service, *flags = one["command"]
        return SETTINGS[service].from_command_line([str(flag) for flag in flags])


def seconds(text: str) -> float:
    return float(text.removesuffix("s"))


def test_how_many_of_each(services: dict[str, Any]) -> None:
    counts: dict[str, int] = {}
    for one in ours(services).values():
        counts[one["command"][0]] = counts.get(one["command"][0], 0) + 1
    assert counts == {"store": 2, "tagsvc": 2, "router": 2, "scheduler": 2, "balancer": 2, "edge": 3}


def test_every_service_takes_what_it_is_told(services: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, one in ours(services).items():
        found, prefix = settings(one, monkeypatch), f"TIDINGS_{one['command'][0].upper()}_"
        assert found.advertise == name
        for variable in one["environment"]:
            assert variable.startswith(prefix), f"{name}: {variable}"
            assert variable.removeprefix(prefix).lower() in type(found).model_fields, f"{name}: {variable} is no setting"


def test_the_servers_they_are_told_of_are_there(services: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    for one in ours(services).values():
        found = settings(one, monkeypatch)
        members = found.registry.removeprefix("etcd://").split(",")
        assert len(members) == 3
        for member in members:
            host, _, port = member.partition(":")
            command = services[host]["command"]
            assert f"--advertise-client-urls=http://{member}" in command
            assert f"--listen-client-urls=http://0.0.0.0:{port}" in command
            assert f"{host}=http://{host}:2380" in services[host]["environment"]["ETCD_INITIAL_CLUSTER"].split(",")
            assert f"--name={host}" in command
        assert urlsplit(found.cache).hostname in services
        if isinstance(found, StoreSettings):
            database = urlsplit(found.database)
            told = services[database.hostname or ""]["environment"]
            assert (database.username, database.password, database.path) == (
                told["POSTGRES_USER"],
                told["POSTGRES_PASSWORD"],
                f"/{told['POSTGRES_DB']}",
            )


def test_ports_agree(services: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    published = [port.rpartition(":")[0] for one in services.values() for port in one.get("ports", [])]
    assert len(set(published)) == len(published)
    for name, one in ours(services).items():
        found: Any = settings(one, monkeypatch)
        assert f"127.0.0.1:{found.admin_port}/readyz" in " ".join(one["healthcheck"]["test"])
        for port in one.get("ports", []):
            outside, inside = port.split(":")[-2:]
            assert inside == str(found.port), name
            assert outside == inside, f"{name} tells others the port it listens on"
        if one["command"][0] == "edge":
            assert found.public_url == f"ws://{GIVEN['PUBLIC_HOST']}:{found.port}"
            assert one["ports"] == [f"{found.port}:{found.port}"]


def test_nothing_is_killed_while_it_drains_and_everything_comes_back(
    services: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, one in services.items():
        assert one["restart"] == "unless-stopped", name
        assert one["healthcheck"]["test"], name
    for name, one in ours(services).items():
        assert seconds(one["stop_grace_period"]) > settings(one, monkeypatch).drain_seconds + 5, name
    for name, one in services.items():
        assert set(one.get("depends_on", {})) <= set(services), name


def test_the_example_names_every_variable() -> None:
    named = {
        line.partition("=")[0] for line in (DEPLOY / ".env.example").read_text().splitlines() if "=" in line and line[0] != "#"
    }
    assert named == set(_VARIABLE.findall((DEPLOY / "compose.yaml").read_text())) == set(GIVEN)


def test_the_image_has_every_service() -> None:
    ignored = (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines()
    packages = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["x-service"]["build"]
    assert packages == {"context": "..", "dockerfile": "deploy/Dockerfile", "target": "tidings"}
    for folder in (*SETTINGS, "mesh", "tagset", "cli", "bench", "gen", "sdk/python"):
        assert f"!{folder}" in ignored
