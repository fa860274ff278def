"""Who and which device a state file, or a client without one, is."""

from tidings_client import naming
from tidings_client.door import TokenSource
from tidings_client.errors import StateFileError
from tidings_client.state import State


def settle_user(state: State, user_id: str | None, token: TokenSource) -> str:
    """Who we are, as far as it can be known before connecting."""
    kept = state.identity("user_id")
    if user_id and kept and user_id != kept:
        raise StateFileError(f"the state file belongs to {kept}: give {user_id} a state file of their own")
    return user_id or kept or (naming.subject_of(token) if isinstance(token, str) else "")


def settle_device(state: State, device_id: str | None) -> str:
    """Which device we are; kept when it wasn't."""
    kept = state.identity("device_id")
    if device_id is not None and naming.DEVICE_ID.fullmatch(device_id) is None:
        raise ValueError(f"device_id {device_id!r}: 1-64 characters of [A-Za-z0-9._-] are allowed")
    if device_id and kept and device_id != kept:
        raise StateFileError(f"the state file belongs to device {kept}: give each device a state file of its own")
    chosen = device_id or kept or naming.new_device_id()
    if not kept:
        state.set_identity("device_id", chosen)
    return chosen
