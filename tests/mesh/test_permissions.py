"""Every method of every contract has its line in the table, and the table says what the services' code does: no more, no less."""

import ast
import importlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from google.protobuf.descriptor import FileDescriptor
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from mesh.permissions import OPERATOR, ROLES, SERVICES, Permissions

ROOT = Path(__file__).parents[2]
HEALTH = "/grpc.health.v1.Health/"
PERMISSIONS = Permissions()


def _files() -> Iterator[FileDescriptor]:
    yield from (health_pb2.DESCRIPTOR, reflection_pb2.DESCRIPTOR)
    for path in (ROOT / "gen/python/tidings").rglob("*_pb2.py"):
        yield importlib.import_module(".".join(path.relative_to(ROOT / "gen/python").with_suffix("").parts)).DESCRIPTOR


def _methods() -> dict[str, set[str]]:
    """Each service's methods, by the service's full name."""
    services = [service for file in _files() for service in file.services_by_name.values()]
    return {service.full_name: {method.name for method in service.methods} for service in services}


METHODS = _methods()


def test_every_method_of_every_contract_has_a_line_and_no_line_is_for_nothing() -> None:
    assert set(PERMISSIONS) == {f"/{service}/{method}" for service, methods in METHODS.items() for method in methods}


def test_only_known_roles_are_allowed_anything() -> None:
    assert {role for method in PERMISSIONS for role in PERMISSIONS.roles(method)} <= set(ROLES)


def test_what_has_no_line_nobody_may_call() -> None:
    assert PERMISSIONS.roles("/tidings.test.Echo/Echo") == frozenset()
    assert PERMISSIONS.roles("") == frozenset()


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_may_call_what_its_code_calls_and_nothing_else(service: str) -> None:
    permitted = {method for method in PERMISSIONS if service in PERMISSIONS.roles(method) and not method.startswith(HEALTH)}
    called = set(_called_by(service))
    assert called <= permitted
    assert not permitted - called


def test_who_may_reach_into_the_store_and_steer_the_fleet() -> None:
    assert PERMISSIONS.roles("/tidings.store.v1.MessageLogService/Append") == {"router"}
    assert PERMISSIONS.roles("/tidings.balancer.v1.BalancerService/DrainEdge") == {OPERATOR}
    assert PERMISSIONS.roles("/tidings.store.v1.DeadLetterService/ReplayDeadLetter") == {OPERATOR}


def _called_by(folder: str) -> Iterator[str]:
    """The methods that a folder's modules call: of a service whose stub one of them uses, and named as an attribute in any."""
    trees = [ast.parse(path.read_text()) for path in (ROOT / folder).rglob("*.py")]
    attributes = {node.attr for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    for tree in trees:
        for package, stub in _stubs(tree, {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}):
            service = f"{package}.{stub.removesuffix('Stub')}"
            yield from (f"/{service}/{method}" for method in METHODS[service] & attributes)


def _stubs(tree: ast.AST, attributes: set[str]) -> Iterator[tuple[str, str]]:
    """The stubs that a module uses: imported by name, or found in an imported module. Package and name."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.ImportFrom) or not (node.module or "").startswith("tidings."):
            continue
        package = str(node.module)
        if package.endswith("_pb2_grpc"):
            package = package.rpartition(".")[0]
            yield from ((package, one.name) for one in node.names if one.name.endswith("Stub"))
        elif any(one.name.endswith("_pb2_grpc") for one in node.names):
            known = {service.rpartition(".")[2] + "Stub" for service in METHODS if service.startswith(f"{package}.")}
            yield from ((package, stub) for stub in known & attributes)
