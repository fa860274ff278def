"""All the promises over one history, whatever is in it."""

from tests.checker import checks, notification_checks
from tests.checker.checks import Breach
from tests.checker.history import History, Reported, Send, Uploaded

CHAT = ("G1", "G2", "G3", "G4", "G5", "G6", "G7", "G8")
NOTIFICATIONS = tuple(notification_checks.CHECKS)
CALLS = ("G15", "G17")


def judge(history: History) -> list[Breach]:
    """All breaches."""
    return [*checks.judge(history), *notification_checks.judge(history)]


def promises(history: History) -> list[str]:
    """Those that this history puts to the test."""
    talked = any(isinstance(one, Send) for one in history)
    notified = any(isinstance(one, Uploaded) for one in history)
    fenced = any(isinstance(one, Reported) and one.fence for one in history)  # only who looks into the store sees fences
    notifications = [one for one in NOTIFICATIONS if fenced or one != "G12"] if notified else []
    return [*(CHAT if talked or not notified else ()), *notifications, *CALLS]
