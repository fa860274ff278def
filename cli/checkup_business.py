"""The services that businesses call, as `tidings doctor` looks at them: by their own doors."""

import os

from cli.business import Door
from cli.checkup import ANSWER_SECONDS, IllError, NotNeededError, Patient
from tidings.scheduler.v1.scheduler_pb2 import ListNotificationsRequest
from tidings.tag.v1.audience_pb2 import CountExpressionRequest
from tidings_client.business import BusinessError

EVERYBODY = "*"
_DOOR = "is the service running, and may this machine call it (allowed_networks, api_keys)? its logs say more"


async def tags(patient: Patient) -> str:
    """Whether audiences are counted."""
    async with _door(patient, "tagsvc", "TIDINGS_TAGS").connect() as business:
        try:
            found = await business.audience.CountExpression(CountExpressionRequest(expression=EVERYBODY), timeout=ANSWER_SECONDS)
        except BusinessError as error:
            raise IllError(f"the tags' service does not count ({error})", _DOOR) from error
    return f"snapshot {found.version}, {found.known_clients:,} clients known"


async def scheduler(patient: Patient) -> str:
    """Whether notifications are listed."""
    async with _door(patient, "scheduler", "TIDINGS_SCHEDULER").connect() as business:
        try:
            found = await business.notifications.ListNotifications(ListNotificationsRequest(page_size=1), timeout=ANSWER_SECONDS)
        except BusinessError as error:
            raise IllError(f"the scheduler does not answer ({error})", _DOOR) from error
    newest = found.notifications[0].notification_id if found.notifications else "none"
    return f"answers; newest notification: {newest}"


def _door(patient: Patient, service: str, variable: str) -> Door:
    running = patient.place.running()
    if not os.environ.get(variable) and not (running and running.ports.get(service)):
        raise NotNeededError(f"not of this machine's mesh; say where it is with {variable}")
    environment = (os.environ.get(name) or None for name in ("TIDINGS_TAGS", "TIDINGS_SCHEDULER", "TIDINGS_API_KEY"))
    return Door(patient.place.folder, *environment)
