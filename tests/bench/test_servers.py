"""A server that doesn't stop is not left behind."""

import signal

import psutil
import psycopg
import pytest

from bench import servers


@pytest.mark.postgresql
def test_a_postgresql_that_does_not_stop_is_killed_with_all_its_sessions(monkeypatch: pytest.MonkeyPatch) -> None:
    with servers.run_postgres() as server, psycopg.connect(server.url()):
        family = [psutil.Process(server.pid), *psutil.Process(server.pid).children()]
        assert len(family) > 2
        family[0].send_signal(signal.SIGSTOP)
        with monkeypatch.context() as impatient:
            impatient.setattr(servers, "START_SECONDS", 0.5)
            server.stop(signal.SIGQUIT)
        assert not any(one.is_running() and one.status() != psutil.STATUS_ZOMBIE for one in family)
        server.start()
        with psycopg.connect(server.url()) as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)
