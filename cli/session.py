"""A connected client for the commands that stay: their state file, their device, their token."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from cli.failure import CommandError
from cli.place import Place
from cli.token import mint
from mesh import naming
from tidings_client import Client

TOKEN_SECONDS = 24 * 3600.0


@asynccontextmanager
async def open_client(
    place: Place, url: str | None, user: str, secret: str | None, purpose: str, device: str | None = None
) -> AsyncIterator[Client]:
    """A client that connects in the background. Its state stays in the data folder for the next time.

    Args:
        place: the data folder.
        url: the balancer's, if given.
        user: who.
        secret: what signs the token, if given.
        purpose: names the state file; each has a device of its own.
        device: a device id, if given; then the state file is that device's.
    """
    base = place.url(url)
    mint(place, user, secret, TOKEN_SECONDS)  # fails now rather than in the background

    async def token() -> str:
        return mint(place, user, secret, TOKEN_SECONDS)

    if device is not None and not naming.DEVICE_ID.fullmatch(device):
        raise CommandError(f"{device!r} is not a device id", "one is 1-64 characters of A-Z a-z 0-9 . _ -")
    with place.client_state(user, base, purpose, device) as (path, device_id):
        async with Client(place.urls(url), token, device_id=device_id, state=path, user_id=user) as client:
            yield client
