"""The door for businesses: networks, API keys, TLS, and both for every kind of call."""

import datetime
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from pydantic import ValidationError

from mesh import rpc
from mesh.business import BusinessDoor, BusinessSettings
from mesh.errors import TidingsError
from mesh.telemetry import Telemetry

SERVICE = "tidings.test.Echo"
KEY = "s3cret-key"
DIGEST = hashlib.sha256(KEY.encode()).hexdigest()
LOCAL = "ipv4:127.0.0.1:4711"


def door(**settings: Any) -> BusinessDoor:
    """A door with these settings."""
    return BusinessDoor(BusinessSettings(**settings))


def refused(door: BusinessDoor, peer: str, **metadata: str) -> str:
    """The reason a call is refused for; empty when it is let in."""
    try:
        door.check(peer, metadata)
    except TidingsError as error:
        return error.reason
    return ""


@pytest.mark.parametrize("peer", [LOCAL, "ipv4:127.255.0.9:1", "ipv6:[::1]:4711", "ipv6:%5B::1%5D:1", "ipv6:[::ffff:127.0.0.1]:9"])
def test_without_settings_this_machine_may_call(peer: str) -> None:
    assert refused(door(), peer) == ""


@pytest.mark.parametrize(
    "peer",
    ["ipv4:192.0.2.7:4711", "ipv6:[2001:db8::1]:4711", "ipv6:[::ffff:192.0.2.7]:4711", "unix:/tmp/socket", "", "ipv4:nonsense"],
)
def test_without_settings_nobody_else_may(peer: str) -> None:
    assert refused(door(), peer) == "NETWORK_REFUSED"


@pytest.mark.parametrize(
    ("peer", "reason"),
    [
        ("ipv4:10.1.2.3:1", ""),
        ("ipv4:10.2.0.1:1", "NETWORK_REFUSED"),
        ("ipv6:[2001:db8:1::5]:1", ""),
        ("ipv6:[fe80::1%25eth0]:1", "NETWORK_REFUSED"),
        ("ipv6:[::ffff:10.1.2.3]:1", ""),
        (LOCAL, "NETWORK_REFUSED"),
    ],
)
def test_only_the_networks_named_may_call(peer: str, reason: str) -> None:
    assert refused(door(allowed_networks=["10.1.0.0/16", "2001:db8:1::/48"]), peer) == reason


def test_a_refusal_names_the_address_and_the_setting() -> None:
    with pytest.raises(TidingsError, match=r"192\.0\.2\.7.*allowed_networks"):
        door().check("ipv4:192.0.2.7:4711", {})


@pytest.mark.parametrize("header", [f"Bearer {KEY}", f"bearer {KEY}", f"BEARER   {KEY} "])
def test_the_right_key_opens(header: str) -> None:
    assert refused(door(api_keys={"shop": DIGEST}), LOCAL, authorization=header) == ""


@pytest.mark.parametrize("header", ["", KEY, f"Basic {KEY}", "Bearer", "Bearer ", f"Bearer {KEY}x", f"Bearer {DIGEST}"])
def test_any_other_key_does_not(header: str) -> None:
    assert refused(door(api_keys={"shop": DIGEST}), LOCAL, authorization=header) == "UNAUTHENTICATED"
    assert refused(door(api_keys={"shop": DIGEST}), LOCAL) == "UNAUTHENTICATED"


def test_each_of_several_keys_opens() -> None:
    keys = {name: hashlib.sha256(name.encode()).hexdigest() for name in ("one", "two", "three")}
    for name in keys:
        assert refused(door(api_keys=keys), LOCAL, authorization=f"Bearer {name}") == ""


def test_the_network_is_checked_also_with_the_right_key() -> None:
    assert refused(door(api_keys={"shop": DIGEST}), "ipv4:192.0.2.7:1", authorization=f"Bearer {KEY}") == "NETWORK_REFUSED"


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"allowed_networks": ["10.0.0.1/8"]}, "allowed_networks"),
        ({"allowed_networks": ["everywhere"]}, "allowed_networks"),
        ({"api_keys": {"shop": KEY}}, "sha256sum"),
        ({"api_keys": {"shop": DIGEST.upper()}}, "sha256sum"),
        ({"tls_certificate": "x"}, "go together"),
        ({"tls_key": "x"}, "go together"),
        ({"tls_client_ca": "x"}, "needs both"),
        ({"tls_certificate": "/nosuch", "tls_key": "/nosuch"}, "there is no file"),
    ],
)
def test_settings_that_could_not_work_are_refused_at_the_start(settings: dict[str, Any], told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        BusinessSettings(**settings)


async def unary(_: Any, __: Any) -> bytes:
    """Answers."""
    return b"in"


async def generate(_: Any, __: Any) -> AsyncIterator[bytes]:
    """Answers on a stream."""
    yield b"in"


async def write(_: Any, context: Any) -> None:
    """Answers on a stream, as a coroutine."""
    await context.write(b"in")


METHODS: dict[str, Any] = {
    "UnaryUnary": grpc.unary_unary_rpc_method_handler(unary),
    "UnaryStream": grpc.unary_stream_rpc_method_handler(generate),
    "Written": grpc.unary_stream_rpc_method_handler(write),
    "StreamUnary": grpc.stream_unary_rpc_method_handler(unary),
    "StreamStream": grpc.stream_stream_rpc_method_handler(generate),
}


@asynccontextmanager
async def guarded(telemetry: Telemetry, **settings: Any) -> AsyncIterator[int]:
    """A server behind a door; gives its port."""
    handler = grpc.method_handlers_generic_handler(SERVICE, METHODS)
    add = {SERVICE: lambda server: server.add_generic_rpc_handlers((handler,))}
    entrance = door(**settings)
    async with rpc.serve("127.0.0.1:0", add, telemetry, reflect=True, drain_seconds=0.1, door=entrance) as port:
        yield port


async def call(channel: Any, method: str, metadata: tuple[tuple[str, str], ...] = ()) -> bytes:
    """Call a method of whichever kind; gives its only response."""
    path = f"/{SERVICE}/{method}"

    async def requests() -> AsyncIterator[bytes]:
        yield b""

    with rpc.named_errors():
        answer: Any
        match method:
            case "UnaryUnary":
                answer = await channel.unary_unary(path)(b"", metadata=metadata, timeout=5)
            case "StreamUnary":
                answer = await channel.stream_unary(path)(requests(), metadata=metadata, timeout=5)
            case "StreamStream":
                answer = await channel.stream_stream(path)(requests(), metadata=metadata, timeout=5).read()
            case _:
                answer = await channel.unary_stream(path)(b"", metadata=metadata, timeout=5).read()
    return bytes(answer)


@pytest.mark.parametrize("method", METHODS)
async def test_every_kind_of_call_is_checked(telemetry: Telemetry, method: str) -> None:
    async with guarded(telemetry, api_keys={"shop": DIGEST}) as port, rpc.channel(f"127.0.0.1:{port}", telemetry) as channel:
        assert await call(channel, method, (("authorization", f"Bearer {KEY}"),)) == b"in"
        for metadata in ((), (("authorization", "Bearer wrong"),)):
            with pytest.raises(TidingsError) as raised:
                await call(channel, method, metadata)
            assert raised.value.reason == "UNAUTHENTICATED"
    async with (
        guarded(telemetry, allowed_networks=["10.0.0.0/8"]) as port,
        rpc.channel(f"127.0.0.1:{port}", telemetry) as channel,
    ):
        with pytest.raises(TidingsError) as raised:
            await call(channel, method)
        assert raised.value.reason == "NETWORK_REFUSED"


async def test_health_and_reflection_are_behind_the_door_too(telemetry: Telemetry) -> None:
    async with guarded(telemetry, api_keys={"shop": DIGEST}) as port, rpc.channel(f"127.0.0.1:{port}", telemetry) as channel:
        check: Any = channel.unary_unary("/grpc.health.v1.Health/Check")
        with pytest.raises(TidingsError) as raised, rpc.named_errors():
            await check(b"", timeout=5)
        assert raised.value.reason == "UNAUTHENTICATED"


async def test_a_method_that_is_not_there_stays_unknown(telemetry: Telemetry) -> None:
    async with guarded(telemetry) as port, rpc.channel(f"127.0.0.1:{port}", telemetry) as channel:
        nothing: Any = channel.unary_unary(f"/{SERVICE}/Nothing")
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await nothing(b"", timeout=5)
    assert raised.value.code() is grpc.StatusCode.UNIMPLEMENTED


@dataclass
class Party:
    """Files of one who has a certificate."""

    certificate: Path
    key: Path

    def chain(self) -> tuple[bytes, bytes]:
        """Key and certificate in PEM, as gRPC takes them."""
        return self.key.read_bytes(), self.certificate.read_bytes()


class Authority:
    """Signs certificates, into a folder."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder = folder
        self._name = name
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._certificate = self._sign(name, self._key, authority=True)
        self.file = folder / f"{name}.pem"
        self.file.write_bytes(self._certificate.public_bytes(serialization.Encoding.PEM))

    def issue(self, name: str) -> Party:
        """A certificate for a server on this machine, or for a client."""
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = self._sign(name, key, authority=False)
        party = Party(self._folder / f"{self._name}-{name}.pem", self._folder / f"{self._name}-{name}.key")
        party.certificate.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        pem, pkcs8, none = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        party.key.write_bytes(key.private_bytes(pem, pkcs8, none))
        return party

    def _sign(self, name: str, key: ec.EllipticCurvePrivateKey, *, authority: bool) -> x509.Certificate:
        now = datetime.datetime.now(datetime.UTC)
        subject, issuer = (x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, one)]) for one in (name, self._name))
        names = x509.SubjectAlternativeName([x509.DNSName("localhost"), x509.IPAddress(ip_address("127.0.0.1"))])
        unsigned = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(hours=1))
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
            .add_extension(names, critical=False)
        )
        return unsigned.sign(self._key, hashes.SHA256())


@asynccontextmanager
async def secure(port: int, authority: Authority, party: Party | None = None) -> AsyncIterator[grpc.aio.Channel]:
    """A channel over TLS; with a certificate of the client's own when it has one."""
    key, chain = party.chain() if party else (None, None)
    credentials = grpc.ssl_channel_credentials(authority.file.read_bytes(), key, chain)
    async with grpc.aio.secure_channel(f"127.0.0.1:{port}", credentials) as channel:
        yield channel


async def test_over_tls_the_server_shows_its_certificate(telemetry: Telemetry, tmp_path: Path) -> None:
    ours, stranger = Authority(tmp_path, "ours"), Authority(tmp_path, "stranger")
    server = ours.issue("server")
    settings = {"tls_certificate": str(server.certificate), "tls_key": str(server.key), "api_keys": {"shop": DIGEST}}
    key = (("authorization", f"Bearer {KEY}"),)
    async with guarded(telemetry, **settings) as port:
        async with secure(port, ours) as channel:
            assert await call(channel, "UnaryUnary", key) == b"in"
            with pytest.raises(TidingsError) as raised:
                await call(channel, "UnaryUnary")
            assert raised.value.reason == "UNAUTHENTICATED"
        for distrusting in (secure(port, stranger), rpc.channel(f"127.0.0.1:{port}", telemetry)):
            async with distrusting as channel:
                with pytest.raises(TidingsError) as raised:
                    await call(channel, "UnaryUnary", key)
                assert raised.value.reason == "UNAVAILABLE"


async def test_with_a_client_authority_only_its_certificates_get_in(telemetry: Telemetry, tmp_path: Path) -> None:
    ours, clients = Authority(tmp_path, "ours"), Authority(tmp_path, "clients")
    server = ours.issue("server")
    settings = {"tls_certificate": str(server.certificate), "tls_key": str(server.key), "tls_client_ca": str(clients.file)}
    async with guarded(telemetry, **settings) as port:
        async with secure(port, ours, clients.issue("shop")) as channel:
            assert await call(channel, "UnaryUnary") == b"in"
        for party in (None, ours.issue("not-a-client")):
            async with secure(port, ours, party) as channel:
                with pytest.raises(TidingsError) as raised:
                    await call(channel, "UnaryUnary")
                assert raised.value.reason == "UNAVAILABLE"
