"""Which faults of a database pass by themselves, and trying again for a while."""

import sqlite3
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

import psycopg
import sqlalchemy.exc
import stamina
import structlog

from mesh import errors
from store.ports import PassingError, T

_ATTEMPTS = 6
_SECONDS = 3.0  # all attempts together: then the caller, who has a deadline, hears UNAVAILABLE
_LIMIT_EXCEEDED = "54"  # SQLSTATE class: the same data will be over the same limit again
_READ_ONLY = "25006"  # a standby, or a server whose disk is nearly full: another one writes, or this one will again
_log = structlog.get_logger(__name__)
_ENDED_BY_SERVER = {"25P03", "25P04"}  # a transaction that took too long, for instance because this process was stopped


async def retrying(work: Callable[[], Awaitable[T]]) -> T:
    """Await `work`, again when the fault may pass.

    Raises:
        TidingsError: UNAVAILABLE when it doesn't pass in time.
    """
    began = time.monotonic()
    try:
        with passing_faults():
            return await work()  # mostly it goes well, and making a loop of attempts costs a tenth of a millisecond
    except PassingError as error:
        _log.warning("trying again", fault=str(error))
        left = _SECONDS - (time.monotonic() - began)
        if left <= 0:
            raise _away(error) from error
    try:
        return await _again(work, left)
    except PassingError as error:
        raise _away(error) from error


async def _again(work: Callable[[], Awaitable[T]], seconds: float) -> T:
    async for attempt in stamina.retry_context(
        on=PassingError, attempts=_ATTEMPTS - 1, timeout=seconds, wait_initial=0.02, wait_max=1.0, wait_jitter=0.05
    ):
        with attempt, passing_faults():
            return await work()
    raise AssertionError("retry_context either returns or raises")


def _away(error: PassingError) -> errors.TidingsError:
    return errors.unavailable(f"the database is away ({error}); send it again")


@contextmanager
def passing_faults() -> Iterator[None]:
    """Turn a fault that may pass into `PassingError`; leave the others as they are."""
    try:
        yield
    except (sqlalchemy.exc.TimeoutError, OSError) as error:
        raise PassingError(str(error)) from error
    except (sqlalchemy.exc.DBAPIError, psycopg.Error, sqlite3.Error) as error:
        if passes(error):
            raise PassingError(_first_line(error)) from error
        raise


def passes(error: Exception) -> bool:
    """Whether a database's fault may pass: a lost connection, a deadlock, a locked file, a full disk, a server that only reads."""
    if isinstance(error, sqlalchemy.exc.DBAPIError):
        return error.connection_invalidated or (isinstance(error.orig, Exception) and passes(error.orig))
    if isinstance(error, psycopg.Error) and (error.sqlstate or "").startswith(_LIMIT_EXCEEDED):
        return False
    if isinstance(error, psycopg.Error) and (writes_elsewhere(error) or error.sqlstate in _ENDED_BY_SERVER):
        return True
    return isinstance(error, psycopg.OperationalError | psycopg.InterfaceError | sqlite3.OperationalError)


def writes_elsewhere(error: BaseException | None) -> bool:
    """Whether a server only reads: its connections will never write, new ones may."""
    return isinstance(error, psycopg.Error) and error.sqlstate == _READ_ONLY


def _first_line(error: Exception) -> str:
    return str(getattr(error, "orig", None) or error).partition("\n")[0]
