"""Who may come in: origin, room, credentials, subprotocol. It must not know what is said afterwards."""

import time
from collections.abc import Callable

from aiohttp import hdrs, web

from edge import refusals
from edge.encoding import BinaryEncoding, Encoding, JsonEncoding
from mesh import errors
from mesh.addresses import caller
from mesh.credentials import Identity, TicketVerifier, TokenVerifier

_BEARER = "bearer "


class Door:
    """The checks before anything is accepted.

    Args:
        origins: origins of web pages that may connect; "*" allows all. A page of the host it calls always may.
        refuse: gives the refusal in force for newcomers (draining, full), or None.
        proxies: how many proxies in front are believed about whom they were called by.
    """

    def __init__(
        self,
        origins: list[str],
        tokens: TokenVerifier,
        tickets: TicketVerifier | None,
        json: JsonEncoding,
        refuse: Callable[[], errors.TidingsError | None],
        proxies: int,
    ) -> None:
        self._origins = frozenset(origins)
        self._tokens = tokens
        self._tickets = tickets
        self._encodings: dict[str, Encoding] = {BinaryEncoding.name: BinaryEncoding(), JsonEncoding.name: json}
        self._refuse = refuse
        self._proxies = proxies

    @property
    def subprotocols(self) -> list[str]:
        """The names of the subprotocols."""
        return list(self._encodings)

    def allows_origin(self, request: web.BaseRequest) -> bool:
        """Whether the page that sent the request may; requests without an origin are not a page's."""
        origin = request.headers.get(hdrs.ORIGIN)
        if origin is None or "*" in self._origins or origin in self._origins:
            return True
        return origin.partition("://")[2] == request.headers.get(hdrs.HOST)

    def address(self, request: web.BaseRequest) -> str:
        """The client's address, as far as proxies in front are believed."""
        return caller(request, self._proxies)

    def check_newcomer(self, request: web.BaseRequest) -> None:
        """Refuse a page of another origin, and anyone while there is no room.

        Raises:
            TidingsError: ORIGIN_REFUSED, GOING_AWAY or NO_CAPACITY.
        """
        if not self.allows_origin(request):
            raise errors.origin_refused(request.headers[hdrs.ORIGIN], "allowed_origins")
        refusal = self._refuse()
        if refusal is not None:
            raise refusal

    def encoding(self, request: web.BaseRequest) -> Encoding:
        """The first offered subprotocol that is known; without an offer `?encoding=text` means JSON.

        Raises:
            TidingsError: UNKNOWN_SUBPROTOCOL.
        """
        offered = request.headers.get(hdrs.SEC_WEBSOCKET_PROTOCOL)
        if offered is None:
            text = request.query.get("encoding") == "text"
            return self._encodings[JsonEncoding.name if text else BinaryEncoding.name]
        for name in offered.split(","):
            if name.strip() in self._encodings:
                return self._encodings[name.strip()]
        raise refusals.unknown_subprotocol(offered, self.subprotocols)

    async def identify(self, request: web.BaseRequest) -> tuple[Identity, str]:
        """Who asks, and the id of the ticket they came with (empty for a token).

        Raises:
            TidingsError: UNAUTHENTICATED.
        """
        ticket = request.query.get("ticket")
        if ticket is None:
            return await self.bearer(request), ""
        if self._tickets is None:
            raise errors.unauthenticated("this edge takes no tickets, for it was given no ticket_secret")
        return self._tickets.verify(ticket, time.time())

    async def bearer(self, request: web.BaseRequest) -> Identity:
        """Who the bearer token names.

        Raises:
            TidingsError: UNAUTHENTICATED.
        """
        header = request.headers.get(hdrs.AUTHORIZATION, "")
        if not header.lower().startswith(_BEARER):
            raise errors.unauthenticated("there is neither a ticket nor a bearer token")
        now = time.time()
        identity = await self._tokens.verify(header[len(_BEARER) :].strip(), now)
        if identity.expires <= now:  # the verifier allows for clocks; a session would end at once
            raise errors.unauthenticated("the token has expired")
        return identity
