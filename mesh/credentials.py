"""Who a client is: tokens, which the business signs, and tickets, which a balancer signs for one edge.

A token is a JWT with `sub` = user id, checked for algorithm, signature, issuer, audience and expiry; one that was found good is
remembered. A ticket is a Fernet (the recipe of `cryptography` for a text that nobody else can make or read), for balancers and
edges alone, bound to one edge *instance* and good for one connection within 30 seconds, or until 30 seconds after the client's
appointment there. As only that one process can accept it, remembering the ids it has seen is enough to make it single-use: no
shared cache is asked, and a restarted edge is another instance.
"""

import asyncio
import base64
import json
import math
import secrets
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import jwt
from cryptography.fernet import Fernet, InvalidToken
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from pydantic import Field, SecretStr, model_validator

from mesh import errors, naming
from mesh.known_tokens import KnownTokens
from mesh.settings import ServiceSettings

TICKET_SECONDS = 30.0
CLOCK_LEEWAY_SECONDS = 5.0  # between the machine that signs tokens and ours
MIN_SECRET_BYTES = 32  # RFC 7518, section 3.2: a key at least as long as the hash
KNOWN_TOKENS = 50_000  # remembered as good: some 15 MB
PUBLISHED_SECONDS = 300.0  # so long a token is remembered whose key may be withdrawn: as long as PyJWKClient remembers the keys
_TICKET_PURPOSE = b"tidings ticket"  # of the key derived from the secret: nothing else made of that secret is a ticket
_LATEST = 253_402_300_799.0  # the last second of the year 9999: what later code can still write as a date
# Besides what PyJWT says, what Python says of text that isn't Unicode or JSON nested too deep.
_REFUSALS = (jwt.PyJWTError, ValueError, RecursionError)
_ASYMMETRIC = ["RS256", "ES256", "EdDSA"]


class CredentialSettings(ServiceSettings):
    """How a service that faces clients checks them."""

    token_secret: SecretStr = Field(SecretStr(""), description="key of HS256 tokens, at least 32 bytes; empty accepts none")
    token_jwks_url: str = Field("", description="where the keys of RS256, ES256 and EdDSA tokens are published; empty accepts none")
    token_issuer: str = Field("tidings", description="the `iss` a token must have")
    token_audience: str = Field("tidings", description="the `aud` a token must have")
    ticket_secret: SecretStr = Field(SecretStr(""), description="key of the tickets between balancers and edges, at least 32 bytes")
    trust_forwarded_for: int = Field(0, ge=0, le=16, description="proxies in front whose X-Forwarded-For entries are believed")

    @model_validator(mode="after")
    def _check_secrets(self) -> "CredentialSettings":
        for name in ("token_secret", "ticket_secret"):
            secret: SecretStr = getattr(self, name)
            if secret.get_secret_value() and len(secret.get_secret_value().encode()) < MIN_SECRET_BYTES:
                raise ValueError(f"{name} is shorter than {MIN_SECRET_BYTES} bytes: make one with `openssl rand -hex 32`")
        return self


@dataclass(frozen=True, slots=True)
class Identity:
    """An authenticated user.

    Attributes:
        user_id: who.
        expires: until when, in Unix seconds.
    """

    user_id: str
    expires: float


@dataclass(frozen=True, slots=True)
class Ticket:
    """A ticket just issued; `expires` in Unix seconds."""

    text: str
    ticket_id: str
    expires: float


class TokenVerifier:
    """Checks the business's tokens."""

    def __init__(self, settings: CredentialSettings) -> None:
        secret = settings.token_secret.get_secret_value()
        self._key_of_ours = _prepared(secret) if secret else None
        self._issuer = settings.token_issuer
        self._audience = settings.token_audience
        self._jwks = jwt.PyJWKClient(settings.token_jwks_url, timeout=5) if settings.token_jwks_url else None
        self._known: KnownTokens[Identity] = KnownTokens(KNOWN_TOKENS)

    async def verify(self, token: str, now: float) -> Identity:
        """The user a token names.

        Raises:
            TidingsError: UNAUTHENTICATED, with what is wrong; UNAVAILABLE when the published keys can't be read.
        """
        known = self._known.get(token, now)
        return await self._examine(token, now) if known is None else known

    async def _examine(self, token: str, now: float) -> Identity:
        try:
            key, algorithms = await self._key(token)
            claims = _decode(token, key, algorithms, issuer=self._issuer, audience=self._audience, now=now)
        except jwt.PyJWKClientConnectionError as error:
            raise errors.unavailable("the keys that tokens are checked with can't be read just now; send it again") from error
        except _REFUSALS as error:
            raise errors.unauthenticated(f"the token was refused ({error})") from error
        if not naming.USER_ID.fullmatch(claims["sub"]):
            raise errors.unauthenticated("the token's `sub` is not a user id (1-128 characters of [A-Za-z0-9._@+-])")
        identity = Identity(claims["sub"], float(claims["exp"]))
        lasting = math.inf if key is self._key_of_ours else now + PUBLISHED_SECONDS
        self._known.learn(token, identity, min(identity.expires + CLOCK_LEEWAY_SECONDS, lasting))
        return identity

    async def _key(self, token: str) -> tuple[object, list[str]]:
        """The key for a token and the only algorithms it may be used with: never both families for one key."""
        if self._jwks is not None and jwt.get_unverified_header(token).get("alg") in _ASYMMETRIC:
            # PyJWKClient reads over the network the first time it sees a key id, and blocks.
            found = await asyncio.to_thread(self._jwks.get_signing_key_from_jwt, token)
            return found.key, _ASYMMETRIC
        if self._key_of_ours is None:
            raise jwt.InvalidAlgorithmError("no key is configured for its algorithm")
        return self._key_of_ours, ["HS256"]


def mint_token(
    secret: str, user_id: str, now: float, lifetime_seconds: float, issuer: str = "tidings", audience: str = "tidings"
) -> str:
    """A token as a business would sign it; for development and tests.

    Raises:
        TidingsError: INVALID_FIELD when the user id is none.
    """
    if not naming.USER_ID.fullmatch(user_id):
        raise errors.invalid_field("user_id", f"{user_id!r} is not 1-128 characters of [A-Za-z0-9._@+-]")
    claims = {"sub": user_id, "iss": issuer, "aud": audience, "iat": int(now), "exp": int(now + lifetime_seconds)}
    return jwt.encode(claims, secret, algorithm="HS256")


class TicketIssuer:
    """Makes tickets; the balancer's side."""

    def __init__(self, secret: str) -> None:
        self._fernet = _fernet(secret)

    def issue(self, identity: Identity, edge_id: str, now: float, wait: float = 0.0) -> Ticket:
        """A ticket for one connection of this user at this edge instance, good for TICKET_SECONDS after `wait` seconds."""
        ticket_id, expires = secrets.token_urlsafe(16), now + wait + TICKET_SECONDS
        said = json.dumps([edge_id, identity.user_id, identity.expires, ticket_id, expires])
        text = self._fernet.encrypt_at_time(said.encode(), int(now)).decode().rstrip("=")  # it is to stand in a URL as it is
        return Ticket(text, ticket_id, expires)


class TicketVerifier:
    """Accepts each ticket once; the edge's side. Without a secret, it accepts none."""

    def __init__(self, secret: str, edge_id: str) -> None:
        self._fernet = _fernet(secret) if secret else None
        self._edge_id = edge_id
        # Ticket id -> expiry, in the order of arrival: roughly that of expiry, which is enough.
        self._used: OrderedDict[str, float] = OrderedDict()

    def verify(self, text: str, now: float) -> tuple[Identity, str]:
        """The user and the ticket's id; the ticket is spent.

        Raises:
            TidingsError: UNAUTHENTICATED, with what is wrong.
        """
        edge_id, user_id, session_expires, ticket_id, expires = self._read(text)
        if edge_id != self._edge_id:
            raise errors.unauthenticated("the ticket was refused (it is for another edge)")
        if expires + CLOCK_LEEWAY_SECONDS <= now:
            raise errors.unauthenticated("the ticket was refused (it has expired)")
        self._forget(now)
        if ticket_id in self._used:
            raise errors.unauthenticated("the ticket was used before")
        self._used[ticket_id] = expires
        return Identity(user_id, session_expires), ticket_id

    def _read(self, text: str) -> tuple[str, str, float, str, float]:
        """What a balancer said: the edge, the user, until when the user's token lasts, the ticket's id, its end."""
        if self._fernet is None:
            raise errors.unauthenticated("the ticket was refused (this edge has no ticket_secret)")
        try:
            edge_id, user_id, session_expires, ticket_id, expires = json.loads(self._fernet.decrypt(text + "=" * (-len(text) % 4)))
        except (InvalidToken, ValueError) as error:  # ValueError: it isn't even ASCII
            raise errors.unauthenticated("the ticket was refused (no balancer of this mesh made it)") from error
        return edge_id, user_id, session_expires, ticket_id, expires

    def _forget(self, now: float) -> None:
        while self._used and next(iter(self._used.values())) + CLOCK_LEEWAY_SECONDS <= now:
            self._used.popitem(last=False)


def _fernet(secret: str) -> Fernet:
    """The key is derived (RFC 5869): Fernet's have a length, and ours serve this purpose alone."""
    key = HKDF(SHA256(), 32, salt=None, info=_TICKET_PURPOSE).derive(secret.encode())
    return Fernet(base64.urlsafe_b64encode(key))


def _prepared(secret: str) -> jwt.PyJWK:
    """A secret as a key: PyJWT examines one given as text each time, which costs as much as the signature."""
    text = base64.urlsafe_b64encode(secret.encode()).rstrip(b"=").decode()
    return jwt.PyJWK({"kty": "oct", "k": text, "alg": "HS256"})


def _decode(text: str, key: object, algorithms: list[str], *, issuer: str, audience: str, now: float) -> dict[str, Any]:
    options: Any = {"require": ["sub", "exp"], "verify_exp": False, "verify_iat": False, "verify_nbf": False}
    claims: dict[str, Any] = jwt.decode(text, key, algorithms, options, issuer=issuer, audience=audience)  # type: ignore[arg-type]
    # Checked here, for PyJWT reads the clock by itself and ours is passed in.
    if _time(claims, "exp") + CLOCK_LEEWAY_SECONDS <= now:
        raise jwt.ExpiredSignatureError("it has expired")
    if "nbf" in claims and _time(claims, "nbf") - CLOCK_LEEWAY_SECONDS > now:
        raise jwt.ImmatureSignatureError("it isn't valid yet")
    return claims


def _time(claims: dict[str, Any], name: str) -> float:
    value = claims[name]
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= _LATEST:
        raise jwt.DecodeError(f"its `{name}` is not a time in seconds")
    return float(value)
