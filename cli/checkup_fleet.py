"""The pieces of a fleet that `tidings doctor` looks at beside its services: the members of etcd, the cache, the certificates."""

import asyncio
import datetime
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
from redis.asyncio import Redis
from redis.exceptions import RedisError

from cli import checkup
from cli.certs_folder import AUTHORITY, Folder
from cli.checkup import IllError, NotNeededError, Patient
from mesh.certificates import CertificateError
from mesh.mutual_tls import MutualTls
from mesh.permissions import ROLES, SERVICES


async def registry_members(patient: Patient) -> str:
    """Whether every member of etcd that we know of is healthy: the registry works while most are, but not after the next falls."""
    if not patient.registry.startswith("etcd://"):
        raise NotNeededError("in memory")
    members = patient.registry.removeprefix("etcd://").split(",")
    healthy = await asyncio.gather(*(_healthy(patient.session, member) for member in members))
    ill = [member for member, well in zip(members, healthy, strict=True) if not well]
    if ill:
        raise IllError(f"{len(ill)} of {len(members)} etcd members are not healthy: {', '.join(ill)}", "start them again")
    return f"{len(members)} etcd healthy"


async def _healthy(session: aiohttp.ClientSession, member: str) -> bool:
    try:
        async with session.get(f"http://{member}/health") as response:
            return bool((await response.json(content_type=None))["health"] == "true")
    except (aiohttp.ClientError, OSError, TimeoutError, ValueError, KeyError):
        return False


async def cache(patient: Patient) -> str:
    """Redis, when the services share one."""
    if not patient.cache.startswith("redis"):
        raise NotNeededError("in memory")
    return await redis(patient.cache)


async def redis(url: str) -> str:
    """Whether Redis answers; which one it is."""
    place = urlsplit(url)
    where = f"{place.hostname}:{place.port or 6379}"  # not the URL, which may hold a password
    client = Redis.from_url(url, socket_timeout=checkup.ANSWER_SECONDS, socket_connect_timeout=checkup.ANSWER_SECONDS)
    try:
        async with client:
            found = await client.info("server")
    except (RedisError, OSError, TimeoutError, ValueError) as error:
        raise IllError(f"Redis at {where} does not answer ({_first_line(error)})", "start it, or correct --cache") from error
    return f"Redis {found['redis_version']} at {where}"


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


async def certificates(patient: Patient) -> str:
    """Those that the services show each other: whether each is good, and when the first ends."""
    if patient.certs is None:
        raise NotNeededError("the services speak plain text among themselves")
    there = Folder(patient.certs, datetime.datetime.now(datetime.UTC))
    entries = [there.entry(role) for role in (AUTHORITY, *ROLES)]
    faults = [f"{entry.role}: {entry.fault}" for entry in entries if entry.fault]
    if faults:
        hint = f"`tidings certs init {patient.certs}` makes what is missing, renew replaces; then restart the services"
        raise IllError("; ".join(faults), hint)
    ends = min(entry.ends for entry in entries if entry.ends)
    return f"{patient.certs}, the first ends on {ends:%Y-%m-%d}"


def usable_certificates(folder: Path) -> None:
    """See that every service will be able to use its own.

    Raises:
        IllError: one is missing, wrong, or over.
    """
    for role in SERVICES:
        try:
            MutualTls.in_folder(folder, role)
        except CertificateError as error:
            raise IllError(str(error), f"`tidings certs show {folder}` looks at all") from error
