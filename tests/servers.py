"""Servers of a test's own: one that crashes, one that stands by."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests.tide import Database, Server, Tide, wait_for
from tidelog_sandbox.postgres import Postgres

# The log is written to disk only when somebody waits for it, or after two seconds: what is not is lost in a crash.
LAZY = {"wal_writer_delay": "2s", "autovacuum": "off", "fsync": "off"}


def database_of(postgres: Postgres, name: str = "postgres") -> Database:
    """Connect to a database of a server, its own if no other is named."""
    return Database(Server(postgres.port, postgres.password), name)


def crash(postgres: Postgres, tide: Tide) -> None:
    """End the server as a loss of power does, and start it again."""
    tide.database.close()
    postgres.restart("immediate")
    tide.database.reconnect()


@contextmanager
def standby_of(primary: Postgres, settings: Mapping[str, str] | None = None) -> Iterator[Postgres]:
    """Start a hot standby."""
    home = Path(tempfile.mkdtemp(prefix="tidelog-standby-"))
    home.chmod(0o755)
    try:
        backup = [primary.binaries / "pg_basebackup", "-D", home / "data", "-R", "-c", "fast", "-d", primary.url()]
        subprocess.run([*map(str, backup)], check=True, capture_output=True)
        if os.geteuid() == 0:
            subprocess.run(["chown", "-R", "nobody", home], check=True)
        given = {"fsync": "off", "hot_standby": "on", **(settings or {})}
        with Postgres(home / "data", password=primary.password, settings=given) as standby:
            yield standby
    finally:
        shutil.rmtree(home)


def pause(standby: Database) -> None:
    """Let a standby replay nothing more."""
    standby.run("SELECT pg_wal_replay_pause()")
    wait_for(lambda: standby.one("SELECT pg_get_wal_replay_pause_state()") == "paused")


def catch_up(primary: Database, standby: Database) -> None:
    """Let a standby replay all that its primary has logged, and wait until it has."""
    standby.run("SELECT pg_wal_replay_resume()")
    position = primary.one("SELECT pg_current_wal_insert_lsn()::text")
    primary.run("SELECT pg_current_xact_id()")  # wakes the log writer
    wait_for(lambda: standby.one(f"SELECT pg_last_wal_replay_lsn() >= '{position}'"))


def sever(standby: Database) -> None:
    """Cut a standby off its primary: it gets nothing more of its log."""
    standby.run("ALTER SYSTEM SET primary_conninfo = ''", "SELECT pg_reload_conf()")
    wait_for(lambda: not standby.one("SELECT count(*) FROM pg_stat_wal_receiver"))
