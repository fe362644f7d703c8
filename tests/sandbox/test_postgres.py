"""A real PostgreSQL for whoever runs this."""

import os
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from tidelog_sandbox import Postgres, SandboxError

SETTINGS = {"fsync": "off", "max_prepared_transactions": "3"}


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    """A running server."""
    with Postgres(settings=SETTINGS) as postgres:
        yield postgres


def test_the_server_runs_with_the_given_settings(postgres: Postgres) -> None:
    """It is version 18, and listens with a password only."""
    assert postgres.run("SHOW max_prepared_transactions") == "3\n"
    assert postgres.run("SHOW server_version_num").startswith("18")
    assert postgres.run("SHOW password_encryption") == "scram-sha-256\n"
    assert postgres.run("SHOW unix_socket_directories") == "\n"
    assert (postgres.binaries / "pg_basebackup").exists()


def test_a_wrong_password_is_refused(postgres: Postgres, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even from this machine."""
    monkeypatch.setattr(postgres, "password", "wrong")
    with pytest.raises(SandboxError, match="password authentication failed"):
        postgres.run("SELECT 1")


def test_the_password_is_in_no_list_of_processes(postgres: Postgres) -> None:
    """SQL is run by a program that has it from its environment, which is its own."""
    with ThreadPoolExecutor(1) as pool:
        run = pool.submit(postgres.run, "SELECT pg_sleep(0.4)")
        seen = set[str]()
        while not run.done():
            for process in psutil.Process().children(recursive=True):
                with suppress(psutil.Error):
                    seen.add(" ".join(process.cmdline()))
    assert any("psql" in line for line in seen)
    assert not [line for line in seen if postgres.password in line]


def test_a_database_of_any_name_can_be_made(postgres: Postgres) -> None:
    """Its address is usable as it is."""
    address = postgres.create_database('a "b"/é', "TEMPLATE template0 ENCODING UTF8")
    assert address == f"postgresql://postgres:{postgres.password}@127.0.0.1:{postgres.port}/a%20%22b%22%2F%C3%A9"
    assert postgres.run("SELECT current_database()", 'a "b"/é') == 'a "b"/é\n'


def test_an_error_of_the_server_is_told_in_its_words(postgres: Postgres) -> None:
    """With the database."""
    with pytest.raises(SandboxError, match=r"run SQL in postgres: .*division by zero"):
        postgres.run("SELECT 1/0")


def test_what_is_committed_outlives_a_restart_and_a_crash(postgres: Postgres) -> None:
    """The port stays the same, and settings may change."""
    port = postgres.port
    postgres.run("CREATE TABLE kept AS SELECT 1 AS n; CHECKPOINT")
    postgres.restart()
    assert postgres.run("SELECT n FROM kept") == "1\n"
    postgres.settings["work_mem"] = "7MB"
    postgres.restart("immediate")
    assert "database system was not properly shut down" in postgres.log
    assert postgres.run("SHOW work_mem; SELECT n FROM kept") == "7MB\n1\n"
    assert (postgres.port, postgres.running) == (port, True)


def test_a_stopped_server_does_not_run(postgres: Postgres) -> None:
    """Stopping it again does nothing, nor does starting it again."""
    for _ in range(2):
        postgres.stop("smart")
        assert not postgres.running
    with pytest.raises(SandboxError, match="refused"):
        postgres.run("SELECT 1")
    for _ in range(2):
        postgres.start()
        assert postgres.running


def test_a_cluster_of_an_earlier_run_is_used_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the password that it was made with. Nothing temporary stays."""
    with tempfile.TemporaryDirectory() as home:
        Path(home).chmod(0o755)  # the server's user may enter it
        monkeypatch.setattr(tempfile, "tempdir", home)
        directory = Path(home) / "kept"
        with Postgres(directory, SETTINGS, password="secret word") as first:
            first.create_database("kept")
        with Postgres(directory, SETTINGS, password="secret word") as second:
            assert second.run("SELECT count(*) FROM pg_database WHERE datname = 'kept'") == "1\n"
        assert list(Path(home).iterdir()) == [directory]


def test_a_server_that_does_not_start_says_why() -> None:
    """In its own words, and leaves nothing."""
    with pytest.raises(SandboxError, match="unrecognized configuration parameter"), Postgres(settings={"no_such": "1"}):
        pass


@pytest.mark.skipif(os.geteuid() != 0, reason="only root's server is another user's")
def test_a_directory_that_the_servers_user_may_not_enter_is_named(tmp_path: Path) -> None:
    """With the way out."""
    tmp_path.chmod(0o700)
    with pytest.raises(SandboxError, match="who may not enter"), Postgres(tmp_path / "data"):
        pass
