"""Tokens and tickets: only what is signed for us, in time, for this edge, once."""

import base64
import json
from collections.abc import AsyncIterator
from typing import Any

import jwt
import pytest
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st
from jwt.algorithms import ECAlgorithm
from pydantic import ValidationError

from mesh.credentials import (
    CLOCK_LEEWAY_SECONDS,
    PUBLISHED_SECONDS,
    TICKET_SECONDS,
    CredentialSettings,
    Identity,
    TicketIssuer,
    TicketVerifier,
    TokenVerifier,
    mint_token,
)
from mesh.errors import TidingsError
from mesh.known_tokens import KnownTokens
from mesh.telemetry import listen
from tidings.common.v1 import error_pb2

SECRET, OTHER = "s" * 32, "o" * 32
NOW = 1_000_000_000.0
CLAIMS = {"sub": "alice", "iss": "tidings", "aud": "tidings", "exp": NOW + 60}


def verifier(**settings: Any) -> TokenVerifier:
    return TokenVerifier(CredentialSettings.model_validate({"token_secret": SECRET} | settings))


def signed(claims: dict[str, Any], key: str = SECRET, algorithm: str = "HS256") -> str:
    return jwt.encode(claims, key, algorithm=algorithm)


async def refusal(token: str, now: float = NOW, **settings: Any) -> str:
    with pytest.raises(TidingsError) as raised:
        await verifier(**settings).verify(token, now)
    assert raised.value.code == error_pb2.ERROR_CODE_UNAUTHENTICATED
    return raised.value.message


async def test_a_minted_token_names_its_user_until_it_ends() -> None:
    token = mint_token(SECRET, "alice", NOW, 60)
    assert await verifier().verify(token, NOW + 59) == Identity("alice", NOW + 60)
    assert "expired" in await refusal(token, NOW + 60 + CLOCK_LEEWAY_SECONDS)


@pytest.mark.parametrize(
    ("claims", "why"),
    [
        ({"aud": "another"}, "udience"),
        ({"iss": "another"}, "ssuer"),
        ({"exp": NOW - 60}, "expired"),
        ({"nbf": NOW + 60}, "valid yet"),
        ({"sub": "not a user id"}, "user id"),
        ({"sub": ""}, "user id"),
        ({"sub": 7}, "ubject"),
        ({"exp": "soon"}, "not a time"),
        ({"nbf": "later"}, "not a time"),
        ({"exp": float("nan")}, "not a time"),
        ({"exp": 1e300}, "not a time"),
        ({"exp": True}, "not a time"),
    ],
)
async def test_a_claim_that_is_wrong_is_named(claims: dict[str, Any], why: str) -> None:
    assert why in await refusal(signed(CLAIMS | claims))


@pytest.mark.parametrize("missing", ["sub", "exp", "iss", "aud"])
async def test_a_claim_that_is_missing_is_named(missing: str) -> None:
    assert missing in await refusal(signed({key: value for key, value in CLAIMS.items() if key != missing}))


async def test_a_token_signed_by_another_or_by_nobody_is_refused() -> None:
    await refusal(signed(CLAIMS, OTHER))
    await refusal(jwt.encode(CLAIMS, "", algorithm="none"))
    await refusal(signed(CLAIMS, SECRET * 2, "HS512"))
    await refusal(signed(CLAIMS), token_secret="")


@given(st.text())
async def test_no_text_makes_it_fail_otherwise(text: str) -> None:
    await refusal(text)


DEEP = base64.urlsafe_b64encode(b"[" * 6_000).decode()  # what fits into an HTTP header, and nests too deep for a parser


@pytest.mark.parametrize("text", ["", ".", "..", "a.b.c", "\udcff", "é.é.é", "e30.e30.e30", "bnVsbA.e30.", DEEP + ".e30.x"])
async def test_garbage_is_refused_by_name(text: str) -> None:
    await refusal(text)
    with pytest.raises(TidingsError) as raised:
        TicketVerifier(SECRET, "edge-1").verify(text, NOW)
    assert raised.value.code == error_pb2.ERROR_CODE_UNAUTHENTICATED


@pytest.fixture
async def jwks() -> AsyncIterator[tuple[str, ec.EllipticCurvePrivateKey]]:
    """A published key, and its private half."""
    key = ec.generate_private_key(ec.SECP256R1())
    public = json.loads(ECAlgorithm.to_jwk(key.public_key())) | {"kid": "one", "use": "sig", "alg": "ES256"}

    async def keys(_: web.Request) -> web.Response:
        return web.json_response({"keys": [public]})

    app = web.Application()
    app.router.add_get("/jwks", keys)
    async with listen(app, "127.0.0.1", 0) as port:
        yield f"http://127.0.0.1:{port}/jwks", key


async def test_published_keys_are_used_and_never_as_a_shared_secret(jwks: tuple[str, ec.EllipticCurvePrivateKey]) -> None:
    url, key = jwks
    token = jwt.encode(CLAIMS, key, algorithm="ES256", headers={"kid": "one"})
    checking = verifier(token_jwks_url=url)
    assert (await checking.verify(token, NOW)).user_id == "alice"
    assert (await checking.verify(signed(CLAIMS), NOW)).user_id == "alice"
    await refusal(jwt.encode(CLAIMS, key, algorithm="ES256", headers={"kid": "two"}), token_jwks_url=url)
    await refusal(token)


async def test_unreachable_keys_are_a_passing_fault_of_ours(jwks: tuple[str, ec.EllipticCurvePrivateKey]) -> None:
    token = jwt.encode(CLAIMS, jwks[1], algorithm="ES256", headers={"kid": "one"})
    with pytest.raises(TidingsError) as raised:
        await verifier(token_jwks_url="http://127.0.0.1:1/jwks").verify(token, NOW)
    assert raised.value.code == error_pb2.ERROR_CODE_UNAVAILABLE


async def test_a_token_found_good_is_remembered_until_it_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    checking, token = verifier(), signed(CLAIMS)
    assert await checking.verify(token, NOW) == Identity("alice", NOW + 60)
    monkeypatch.setattr("mesh.credentials._decode", lambda *_, **__: pytest.fail("it was examined already"))
    assert await checking.verify(token, NOW + 60 + CLOCK_LEEWAY_SECONDS - 0.1) == Identity("alice", NOW + 60)
    monkeypatch.undo()
    for later in (NOW + 60 + CLOCK_LEEWAY_SECONDS, NOW + 3600):
        with pytest.raises(TidingsError, match="expired"):
            await checking.verify(token, later)
    with pytest.raises(TidingsError):
        await checking.verify(token[:-1] + ("A" if token[-1] != "A" else "E"), NOW)


async def test_a_token_of_a_withdrawn_key_is_not_remembered_for_ever(jwks: tuple[str, ec.EllipticCurvePrivateKey]) -> None:
    url, key = jwks
    token = jwt.encode(CLAIMS | {"exp": NOW + 3600}, key, algorithm="ES256", headers={"kid": "one"})
    checking: Any = verifier(token_jwks_url=url)
    await checking.verify(token, NOW)
    checking._jwks = jwt.PyJWKClient("http://127.0.0.1:1/jwks")  # where its key isn't
    await checking.verify(token, NOW + PUBLISHED_SECONDS - 1)
    with pytest.raises(TidingsError):
        await checking.verify(token, NOW + PUBLISHED_SECONDS)


def test_of_too_many_tokens_the_one_unused_for_longest_is_forgotten() -> None:
    known: KnownTokens[int] = KnownTokens(2)
    known.learn("a", 1, NOW + 1)
    known.learn("b", 2, NOW + 1)
    assert known.get("a", NOW) == 1
    known.learn("c", 3, NOW + 1)
    assert [known.get(one, NOW) for one in ("a", "b", "c")] == [1, None, 3]
    assert len(known) == 2


def ticket(edge_id: str = "edge-1", now: float = NOW) -> str:
    return TicketIssuer(SECRET).issue(Identity("alice", NOW + 3600), edge_id, now).text


def refused_ticket(text: str, checking: TicketVerifier, now: float = NOW) -> str:
    with pytest.raises(TidingsError) as raised:
        checking.verify(text, now)
    assert raised.value.code == error_pb2.ERROR_CODE_UNAUTHENTICATED
    return raised.value.message


def test_a_ticket_opens_its_edge_once() -> None:
    issued = TicketIssuer(SECRET).issue(Identity("alice", NOW + 3600), "edge-1", NOW)
    assert issued.expires == NOW + TICKET_SECONDS
    checking = TicketVerifier(SECRET, "edge-1")
    assert checking.verify(issued.text, NOW + 1) == (Identity("alice", NOW + 3600), issued.ticket_id)
    assert "used before" in refused_ticket(issued.text, checking)


def test_a_ticket_used_before_stays_used_until_it_runs_out() -> None:
    checking, issued = TicketVerifier(SECRET, "edge-1"), ticket()
    checking.verify(issued, NOW)
    for passed in (1.0, TICKET_SECONDS, TICKET_SECONDS + CLOCK_LEEWAY_SECONDS - 0.1):
        checking.verify(ticket(now=NOW + passed), NOW + passed)
        assert "used before" in refused_ticket(issued, checking, NOW + passed)
    assert "expired" in refused_ticket(issued, checking, NOW + TICKET_SECONDS + CLOCK_LEEWAY_SECONDS)


def test_used_tickets_are_forgotten_once_they_have_run_out() -> None:
    checking: Any = TicketVerifier(SECRET, "edge-1")
    for second in range(200):
        checking.verify(ticket(now=NOW + second), NOW + second)
    assert len(checking._used) <= TICKET_SECONDS + CLOCK_LEEWAY_SECONDS + 1


def test_a_ticket_for_another_edge_or_from_another_issuer_is_refused() -> None:
    checking = TicketVerifier(SECRET, "edge-1")
    assert "another edge" in refused_ticket(ticket("edge-2"), checking)
    refused_ticket(TicketIssuer(OTHER).issue(Identity("alice", NOW), "edge-1", NOW).text, checking)
    refused_ticket(jwt.encode(CLAIMS, "", algorithm="none"), checking)
    refused_ticket(signed(CLAIMS | {"aud": "edge-1"}), checking)


def test_a_token_is_no_ticket_though_the_same_secret_signed_it() -> None:
    refused_ticket(mint_token(SECRET, "alice", NOW, 60, audience="edge-1"), TicketVerifier(SECRET, "edge-1"))


def test_without_a_secret_no_ticket_is_accepted() -> None:
    refused_ticket(TicketIssuer("").issue(Identity("alice", NOW + 60), "edge-1", NOW).text, TicketVerifier("", "edge-1"))


def test_a_ticket_that_was_changed_is_refused() -> None:
    checking, issued = TicketVerifier(SECRET, "edge-1"), ticket()
    assert issued.isascii() and not set(issued) & set("=+/&? "), "it stands in a URL as it is"
    for at in range(len(issued) - 1):  # the last character has bits that say nothing
        refused_ticket(issued[:at] + ("A" if issued[at] != "A" else "B") + issued[at + 1 :], checking)
    assert checking.verify(issued, NOW)[0].user_id == "alice"


@pytest.mark.parametrize("name", ["token_secret", "ticket_secret"])
def test_a_short_secret_is_refused_with_how_to_make_one(name: str) -> None:
    with pytest.raises(ValidationError, match=f"{name} is shorter than 32 bytes: make one with"):
        CredentialSettings.model_validate({name: "short"})


def test_a_token_is_minted_only_for_a_user_id() -> None:
    with pytest.raises(TidingsError) as raised:
        mint_token(SECRET, "not a user", NOW, 60)
    assert raised.value.code == error_pb2.ERROR_CODE_INVALID_FIELD
