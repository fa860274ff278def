"""The promises about notifications, G9 to G12, each as a pure function: a view of a history -> breaches.

Like those about chat they trust what devices showed and callers were told, and name a fault once.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from itertools import pairwise

from tests.checker.checks import Breach
from tests.checker.history import Controlled, History, Reported
from tests.checker.notification_view import OVER, NotificationView

CLOCK_SECONDS = 0.25  # between a device's idea of the server's time and ours: both are of one machine, but times travel
ACK_SECONDS = 1.0  # from a device's showing it to the store's knowing; it takes a half
PARTS = ("delivered", "pending", "failed", "expired", "cancelled")
Check = Callable[[NotificationView], list[Breach]]


def judge(history: History) -> list[Breach]:
    """All breaches of all promises about notifications."""
    view = NotificationView(history)
    return [breach for check in CHECKS.values() for breach in check(view)]


def check_g9(view: NotificationView) -> list[Breach]:
    """Each member of the audience once per device, nobody else, none too early or late; who could be reached was."""
    return [
        *_shown_twice(view),
        *_strangers(view),
        *_out_of_time(view),
        *_not_reached(view),
        *_not_begun(view),
        *_wrong_expansion(view),
    ]


def _shown_twice(view: NotificationView) -> Iterator[Breach]:
    for (client, name), times in Counter((one.client, one.notification) for one in view.shown).items():
        if times > 1:
            yield Breach("G9", "shown_twice", f"{client} showed {name} {times} times")


def _strangers(view: NotificationView) -> Iterator[Breach]:
    for name, users in view.users_shown.items():
        audience = view.audience(name) if name in view.uploads else set()
        for user in sorted(users - audience) if audience is not None else ():
            yield Breach("G9", "shown_to_stranger", f"{user} was shown {name}, which is not for them")


def _out_of_time(view: NotificationView) -> Iterator[Breach]:
    for one in view.shown:
        upload = view.uploads.get(one.notification)
        if upload is not None and one.time < upload.due - CLOCK_SECONDS:
            yield Breach("G9", "shown_early", f"{one.client} showed {one.notification} at {one.time}, due {upload.due}")
        if upload is not None and one.time > upload.expires + CLOCK_SECONDS:
            yield Breach("G9", "shown_late", f"{one.client} showed {one.notification} at {one.time}, void from {upload.expires}")


def _not_reached(view: NotificationView) -> Iterator[Breach]:
    settled = view.settled
    for name, upload in view.uploads.items() if settled is not None else ():
        audience, last = view.audience(name), view.last(name)
        held = last is None or last.state in ("CANCELLED", "PAUSED", "SCHEDULED", "FAILED")
        if audience is None or held or settled is None or upload.expires < settled.time:
            continue
        for user, devices in view.reachable():
            if user in audience and user not in view.users_shown[name]:
                yield Breach("G9", "not_reached", f"{user} was there with {devices} and never shown {name}")


def _not_begun(view: NotificationView) -> Iterator[Breach]:
    for name, upload in view.uploads.items():
        last = view.last(name)
        if (
            view.settled is not None
            and last is not None
            and last.state in ("SCHEDULED", "EXPANDING")
            and upload.due < view.settled.since
        ):
            yield Breach("G9", "not_begun", f"{name}, due {upload.due}, is {last.state} at {last.completed}")


def _wrong_expansion(view: NotificationView) -> Iterator[Breach]:
    for (name, outcome), users in view.read_back.items():
        if outcome != "expansion" or name not in view.uploads:
            continue
        audience, last = view.audience(name), view.last(name)
        if users and view.uploads[name].tree is not None and last is not None and not last.snapshot:
            yield Breach("G9", "not_pinned", f"{name} was expanded, but its report names no snapshot of the tags")
        if audience is not None and users != audience:
            extra, missing = sorted(users - audience)[:5], sorted(audience - users)[:5]
            yield Breach("G9", "wrong_expansion", f"{name} was expanded with {extra} too many and {missing} missing")


def check_g10(view: NotificationView) -> list[Breach]:
    """Parts sum to the expansion at every reading; delivered is what devices acknowledged."""
    return [*_sums(view), *_backwards(view), *_miscounted(view)]


def _sums(view: NotificationView) -> Iterator[Breach]:
    for one in (reading for readings in view.readings.values() for reading in readings):
        if sum(getattr(one, part) for part in PARTS) != one.expansion:
            yield Breach("G10", "sum_broken", f"at {one.completed} {_numbers(one)}")
        elif one.delivered > one.sent or one.sent > one.expansion:
            yield Breach("G10", "more_than_possible", f"at {one.completed} {_numbers(one)}")


def _backwards(view: NotificationView) -> Iterator[Breach]:
    for readings in view.readings.values():
        for before, after in pairwise(readings):
            if after.invoked < before.completed:
                continue  # two readers at the same time
            if after.delivered < before.delivered or after.sent < before.sent:
                yield Breach("G10", "went_back", f"{_numbers(before)}, then {_numbers(after)}")
            if before.expansion and after.expansion != before.expansion:
                yield Breach("G10", "expansion_changed", f"{_numbers(before)}, then {_numbers(after)}")
            if before.state in OVER and after.state != before.state:
                yield Breach("G10", "came_back", f"{_numbers(before)}, then {_numbers(after)}")


def _miscounted(view: NotificationView) -> Iterator[Breach]:
    for (name, outcome), users in view.read_back.items():
        if outcome != "delivered":
            continue
        for user in sorted(users - view.users_kept[name]):
            yield Breach("G10", "delivered_to_nobody", f"{name} counts {user} as delivered, but no device of theirs has it")
        for user in sorted(view.users_shown[name] - users) if view.settled is not None else ():
            if not _unheard(view, name, user):
                yield Breach("G10", "delivered_forgotten", f"{user} was shown {name}, which never counted")


def _unheard(view: NotificationView, name: str, user: str) -> bool:
    """Whether the acknowledgement may have been lost for good: what is over isn't sent again, so it isn't acknowledged again."""
    last, shown = view.last(name), view.last_shown[name, user]
    over = last is not None and last.state in OVER
    return over and any(one.start - ACK_SECONDS <= shown <= one.end + ACK_SECONDS for one in view.disturbances)


def check_g11(view: NotificationView) -> list[Breach]:
    """A cancel says how many had gone, and nobody is sent it afterwards; nor while it is paused."""
    return [*_cancels(view), *_pauses(view)]


def _cancels(view: NotificationView) -> Iterator[Breach]:
    for cancel in _done(view, "cancel"):
        name = cancel.notification
        later = [one for one in view.readings.get(name, []) if one.invoked >= (cancel.completed or 0.0)]
        if going := [one for one in later if one.state != "CANCELLED"]:
            yield Breach("G11", "not_cancelled", f"cancelled at {cancel.completed}; at {going[0].completed} {_numbers(going[0])}")
        if more := [one for one in later if one.sent != cancel.sent]:
            text = f"cancel said {cancel.sent} had gone; at {more[0].completed} {_numbers(more[0])}"
            yield Breach("G11", "sent_after_cancel", text)
        if len(view.users_shown[name]) > cancel.sent:
            text = f"cancel said {cancel.sent} had gone, but {len(view.users_shown[name])} users were shown {name}"
            yield Breach("G11", "shown_after_cancel", text)


def _pauses(view: NotificationView) -> Iterator[Breach]:
    for pause in _done(view, "pause"):
        start = pause.completed or 0.0
        resumed = [one.invoked for one in view.controls if one.action == "resume" and one.notification == pause.notification]
        end = min((time for time in resumed if time >= start), default=float("inf"))
        meanwhile = [one for one in view.readings.get(pause.notification, []) if one.invoked >= start and one.completed <= end]
        if going := [one for one in meanwhile if one.state != "PAUSED" and one.state not in OVER]:
            yield Breach("G11", "not_paused", f"paused at {pause.completed}; at {going[0].completed} {_numbers(going[0])}")
        sent = {one.sent for one in meanwhile}
        if len(sent) > 1:
            yield Breach("G11", "sent_while_paused", f"{pause.notification} went from {min(sent)} to {max(sent)} sent while paused")


def check_g12(view: NotificationView) -> list[Breach]:
    """Fences never go back."""
    return [
        Breach("G12", "fence_went_back", f"{before.notification} went from fence {before.fence} to {after.fence}")
        for readings in view.readings.values()
        for before, after in pairwise([one for one in readings if one.fence])
        if after.invoked >= before.completed and after.fence < before.fence
    ]


def _done(view: NotificationView, action: str) -> list[Controlled]:
    return [one for one in view.controls if one.action == action and one.outcome == "done"]


def _numbers(one: Reported) -> str:
    parts = ", ".join(f"{part} {getattr(one, part)}" for part in ("expansion", "sent", *PARTS))
    return f"{one.notification} is {one.state}: {parts}"


CHECKS: dict[str, Check] = {"G9": check_g9, "G10": check_g10, "G11": check_g11, "G12": check_g12}
