"""The command line run as a user runs it, and the folder that it leaves."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from tests.tide import Database
from tidelog.tables import TableName
from tidelog_cli.main import app
from tidelog_sandbox import Sandbox

TIDELOG = str(Path(sys.executable).with_name("tidelog"))


def environment(**more: str) -> dict[str, str]:
    """Return the environment of a user without AWS."""
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "PG", "MOTO_", "TIDELOG_"))
    }
    return {**kept, **more}


def tidelog(*command: str, **variables: str) -> str:
    """Run a command that succeeds in this process, which is faster; return what it printed."""
    mine = environment(**variables)
    done = CliRunner().invoke(app, command, env={**dict.fromkeys(os.environ.keys() - mine.keys()), **variables})
    assert done.exit_code == 0, (done.output, done.exception)
    return done.output


def address(database: Database, user: str = "postgres") -> str:
    """Return the connection string of a database, without its password."""
    return f"postgresql://{user}@127.0.0.1:{database.server.port}/{database.name}"


def kill_waiting(sandbox: Sandbox, database: Database, table: str) -> bool:
    """Kill the worker that waits for a lock on a table, and its session, which would not notice; say whether it was."""
    waiting = database.column(
        "SELECT pid FROM pg_stat_activity WHERE application_name = 'tidelog' AND wait_event_type = 'Lock' "
        "AND datname = current_database()"
    )
    worker = sandbox.functions[sandbox.outputs["WorkerFunction"]]
    if not waiting or not worker.kill(lambda event: table in event["Records"][0]["body"]):
        return False
    database.run(*(f"SELECT pg_terminate_backend({pid}, 30000)" for pid in waiting))
    return True


@dataclass(frozen=True)
class Folder:
    """A database and the folder that it is ingested into."""

    database: Database
    root: Path

    def run(self, *options: str, user: str = "postgres") -> subprocess.CompletedProcess[str]:
        """Run `tidelog local run` with some more options."""
        command = [
            TIDELOG,
            "local",
            "run",
            "--database",
            address(self.database, user),
            "--lake",
            str(self.root),
            *options,
        ]
        password = self.database.server.password
        return subprocess.run(
            command, env=environment(PGPASSWORD=password), capture_output=True, text=True, timeout=120, check=False
        )

    def files(self) -> Mapping[str, float]:
        """Return the files of the lake, and when each was written."""
        folders = ("data", "ledger", "schema")
        paths = [path for folder in folders for path in (self.root / folder).rglob("*") if path.is_file()]
        return {str(path.relative_to(self.root)): path.stat().st_mtime for path in paths}

    def lines(self, table: str) -> list[bytes]:
        """Return every line of a table."""
        paths = sorted(
            (self.root / "data" / TableName.parse(table).path).rglob("*.jsonl.gz"), key=lambda path: path.name
        )
        return [line for path in paths for line in gzip.decompress(path.read_bytes()).split(b"\n")[:-1]]

    def rows(self, table: str) -> list[dict[str, Any]]:
        """Return every line of a table, read."""
        return [json.loads(line) for line in self.lines(table)]
