"""`tidings notify …` against a real mesh."""

import json
from datetime import UTC, datetime, timedelta

from cli.notify_lines import PARTS
from tests.cli.mesh_under_test import MeshUnderTest


def test_send_report_and_who(mesh: MeshUnderTest) -> None:
    mesh.run("tag", "add", "nora", "readers")
    mesh.run("tag", "add", "nick", "readers")
    sent = mesh.json("notify", "readers", "--text", "A new chapter", "--priority", "3")
    assert sent["estimated_audience"] == 2
    assert sent["spec"]["priority"] == 3
    report = mesh.json("notify", "report", sent["notification_id"])
    assert sum(report[part] for part in PARTS) == report["expansion"]
    cancelled = mesh.json("notify", "cancel", sent["notification_id"])
    assert (cancelled["sent"], cancelled["state"]) == (0, "CANCELLED")
    assert mesh.run("notify", "report", sent["notification_id"], "--who", "cancelled").stdout.split() == ["nora", "nick"]
    again = mesh.run("notify", "cancel", sent["notification_id"], ok=False)
    assert again.returncode == 1
    assert "CANCELLED" in again.stderr


def test_a_scheduled_one_is_steered(mesh: MeshUnderTest) -> None:
    mesh.run("tag", "add", "nora", "later")
    name = mesh.json("notify", "later", "--text", "Soon", "--at", "+1h")["notification_id"]
    assert [one["notification_id"] for one in mesh.json_lines("notify", "list", "--state", "scheduled")] == [name]
    assert mesh.json("notify", "pause", name)["report"]["state"] == "PAUSED"
    assert mesh.json("notify", "resume", name)["report"]["state"] == "SCHEDULED"
    assert mesh.json("notify", "reprioritize", name, "9")["spec"]["priority"] == 9
    before = mesh.json("notify", "list", "--limit", "1")["spec"]["send_time"]
    assert mesh.json("notify", "reschedule", name, "--at", "+2h")["spec"]["send_time"] > before
    assert name in mesh.run("notify", "list").stdout
    mesh.run("notify", "cancel", name)


def test_watch_ends_when_it_is_over(mesh: MeshUnderTest) -> None:
    mesh.run("tag", "add", "nora", "brief")
    done = mesh.run("notify", "brief", "--text", "Quick", "--expires", "+2s", "--watch", "--json")
    readings = [json.loads(line) for line in done.stdout.splitlines()][1:]
    assert readings[-1]["state"] in ("COMPLETED", "EXPIRED")
    assert readings[-1]["expired"] == 1
    assert all(sum(one[part] for part in PARTS) == one["expansion"] for one in readings)


def test_the_same_request_id_is_the_same_notification(mesh: MeshUnderTest) -> None:
    mesh.run("tag", "add", "nora", "once")
    at = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    words = ("notify", "once", "--text", "Only once", "--at", at, "--request-id", "the-same")
    assert mesh.json(*words)["notification_id"] == mesh.json(*words)["notification_id"]
    other = mesh.run(*words, "--priority", "1", ok=False)
    assert other.returncode == 1
    assert "the-same" in other.stderr


def test_faults_are_one_line(mesh: MeshUnderTest) -> None:
    for words, said in (
        (("notify", "nobody_has_this", "--text", "x"), "nobody_has_this"),
        (("notify", "*", "--text", "x", "--rate", "0"), "rate_per_second"),
        (("notify", "*", "--text", "x", "--at", "2001-01-01T00:00Z"), "send_time"),
        (("notify", "*", "--text", "x", "--at", "+2h", "--expires", "+1h"), "expire_time"),
        (("notify", "*"), "--text"),
        (("notify", "*", "--text", "x", "--at", ""), "--at '' is no time"),
        (("notify", "*", "--text", "x", "--zone", "Europe/Zurich"), "--cron"),
        (("notify", "*", "--text", "x", "--rate", "-1"), "--rate"),
        (("notify", "lsit"), "tidings notify list"),
        (("notify", "report", "n" + "a" * 26), "no notification"),
        (("notify", "list", "--state", "gone"), "no state 'gone'"),
    ):
        done = mesh.run(*words, ok=False)
        assert done.returncode != 0, words
        assert said in done.stderr
        assert len(done.stderr.splitlines()) == 1
