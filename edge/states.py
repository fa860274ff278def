"""Where a session stands, and what moves it on: the table is the documentation."""

from enum import Enum, auto


class State(Enum):
    """Where a session stands."""

    HANDSHAKE = auto()  # Hello has not come
    OPENING = auto()  # the user's ordinal is asked for
    ANNOUNCING = auto()  # the routers are being told that the user is here
    SYNCING = auto()  # what was missed is being sent; live entries are held back
    LIVE = auto()
    CLOSED = auto()


class Event(Enum):
    """What moves it on."""

    HELLO = auto()
    OPENED = auto()
    ANNOUNCED = auto()
    CAUGHT_UP = auto()
    MISSED = auto()


# Any state moves to CLOSED, from which nothing leads.
MOVES = {
    (State.HANDSHAKE, Event.HELLO): State.OPENING,
    (State.OPENING, Event.OPENED): State.ANNOUNCING,
    (State.ANNOUNCING, Event.ANNOUNCED): State.SYNCING,
    (State.SYNCING, Event.CAUGHT_UP): State.LIVE,
    (State.LIVE, Event.MISSED): State.SYNCING,
}
