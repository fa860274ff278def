"""`tidings token`: a development JWT, signed as the business' own login service would sign it."""

import time
from typing import Annotated

import typer

from cli.failure import CommandError
from cli.options import DEFAULT_DATA, Data, Secret, say
from cli.place import Place
from mesh import credentials, errors

app = typer.Typer(rich_markup_mode="rich")


@app.command(
    epilog='Example: [bold]curl -H "Authorization: Bearer $(tidings token alice)" -X POST http://127.0.0.1:8080/v1/connect[/bold]'
)
def token(
    user: Annotated[str, typer.Argument(help="Whose: 1-128 characters of A-Z a-z 0-9 . _ @ + -", metavar="USER")],
    hours: Annotated[float, typer.Option("--hours", help="How long it is good for.", min=0.001, max=87600)] = 24,
    secret: Secret = None,
    data: Data = DEFAULT_DATA,
) -> None:
    """Print a development token for a user of the mesh that keeps its data in --data."""
    say(mint(Place(data), user, secret, hours * 3600))


def mint(place: Place, user: str, secret: str | None, seconds: float) -> str:
    """A token for `user`, good for so many seconds."""
    key = place.token_secret(secret)
    if len(key.encode()) < credentials.MIN_SECRET_BYTES:
        raise CommandError(
            f"the secret is shorter than {credentials.MIN_SECRET_BYTES} bytes", "make one with `openssl rand -hex 32`"
        )
    try:
        return credentials.mint_token(key, user, time.time(), seconds)
    except errors.TidingsError as error:
        raise CommandError(error.message) from error
