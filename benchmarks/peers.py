"""The peers: commands that write a table, or what has changed in it, as JSON Lines to this machine's disk.

Each is in an environment of its own and is set up as its documentation has it. None keeps a state here: what has
changed is asked for by the cursor that it is given. The limits are what PostgreSQL's own client can do.
"""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from benchmarks.environments import (
    CHDB,
    CONNECTORX,
    DLT,
    DUCKDB,
    POLARS,
    SLING,
    TAP,
    TARGET,
    environment_of,
    python_of,
)
from benchmarks.processes import Pipe, ToolFailedError
from benchmarks.setting import ROOT

from tidelog_sandbox.postgres import USER, Postgres

NULL_PEER = "psql COPY row_to_json > /dev/null"
PLAIN_PEER = "psql COPY row_to_json | gzip -1"
_PLAIN = r"(FORMAT csv, QUOTE E'\x01', DELIMITER E'\x02')"
"""COPY's text format would double each backslash, which is not JSON."""
_SCRIPTS = ROOT / "benchmarks" / "scripts"


@dataclass(frozen=True, slots=True)
class Task:
    """What a peer is to do.

    Attributes:
        server: the database.
        table: whose rows it writes.
        directory: where it keeps its files; it is new.
        since: only rows with a `last_updated` after this (ISO 8601), where it is given.
    """

    server: Postgres
    table: str
    directory: Path
    since: str = ""

    @property
    def arguments(self) -> list[str]:
        """What a script is given."""
        return [self.server.url(), self.table, str(self.directory), *([self.since] if self.since else [])]

    @property
    def query(self) -> str:
        """What it is to write."""
        return f"SELECT * FROM {self.table}" + (f" WHERE last_updated > '{self.since}'" if self.since else "")


@dataclass(frozen=True, slots=True)
class Peer:
    """A peer.

    Attributes:
        name: of the tool, with versions and how it is set up.
        kind: a "limit" does less than the job: nothing finds what has changed, or keeps what was done; a "reader" is
            a library; a "tool" does the whole job.
        pipe: makes the commands of a task; what is not to be measured, it does at once.
        pace: a "middling" one takes part in the first round only, and a "slow" one of a tenth of the rows.
    """

    name: str
    kind: Literal["limit", "reader", "tool"]
    pipe: Callable[[Task], Pipe]
    pace: Literal["fast", "middling", "slow"] = "fast"


def written(directory: Path) -> list[Path]:
    """Return the files with rows that a peer has left in a directory."""
    found = (path for path in directory.rglob("*.jsonl*") if not any(part.startswith("_dlt") for part in path.parts))
    return sorted(path for path in found if "state" not in path.parts)


def lines(directory: Path) -> Iterator[bytes]:
    """Read what a peer has left in a directory, compressed or not."""
    for path in written(directory):
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as rows:
            yield from rows


def _psql(task: Task, *, output: str) -> Pipe:
    copy = f"COPY (SELECT row_to_json(r) FROM ({task.query}) r) TO STDOUT WITH {_PLAIN}"
    command = [str(task.server.binaries / "psql"), "-X", task.server.url(), "-c", copy]
    if output == os.devnull:
        return Pipe([command], output=Path(os.devnull))
    return Pipe([command, ["gzip", "-1"]], output=task.directory / output)


def _script(tool: str, task: Task, *more: str) -> Pipe:
    url, table, directory, *since = task.arguments
    python = python_of(tool) if tool else sys.executable
    script = {"": "pg8000"}.get(tool, tool)
    return Pipe([[python, str(_SCRIPTS / f"{script}_load.py"), url, table, directory, *more, *since]])


def _dlt(task: Task, backend: str) -> Pipe:
    pipe = _script("dlt", task, backend)
    environment = {**os.environ, "RUNTIME__DLTHUB_TELEMETRY": "false", "DLT_DATA_DIR": str(task.directory / "state")}
    return Pipe(pipe.commands, {**environment, "RUNTIME__LOG_LEVEL": "ERROR"})


def _sling(task: Task) -> Pipe:
    (program,) = (environment_of("sling") / "lib").glob("python*/site-packages/sling_*/bin/sling-*")
    program.chmod(0o755)
    arguments = {
        "--src-conn": "PEER",
        "--src-stream": task.query if task.since else f"public.{task.table}",
        "--tgt-object": (task.directory / "rows.jsonl.gz").as_uri(),
        "--tgt-options": json.dumps({"format": "jsonlines", "compression": "gzip"}),
        "--mode": "full-refresh",
    }
    environment = {
        **os.environ,
        "PEER": f"{task.server.url()}?sslmode=disable",
        "SLING_HOME_DIR": str(task.directory / "state"),
        "SLING_DISABLE_TELEMETRY": "TRUE",
    }
    return Pipe([[str(program), "run", *(word for pair in arguments.items() for word in pair)]], environment)


def _tap(task: Task) -> Pipe:
    """Discover the table, and run the tap with what was found: Meltano keeps that too."""
    tap, target = environment_of("tap-postgres"), environment_of("target-jsonl")
    state = task.directory / "state"
    state.mkdir()
    command = [str(tap / "bin" / "tap-postgres"), "--config", str(state / "config.json")]
    write_tap_config(task.server, state / "config.json")
    done = subprocess.run([*command, "--discover"], cwd=state, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ToolFailedError(f"{command!r} --discover has ended:\n{done.stderr[-3000:]}")
    cursor = "last_updated" if task.since else ""
    (state / "catalog.json").write_text(json.dumps(select_stream(json.loads(done.stdout), task.table, cursor)))
    command += ["--catalog", str(state / "catalog.json")]
    if cursor:
        bookmark = {"replication_key": cursor, "replication_key_value": task.since}
        (state / "state.json").write_text(json.dumps({"bookmarks": {f"public-{task.table}": bookmark}}))
        command += ["--state", str(state / "state.json")]
    given = {"destination_path": str(task.directory), "do_timestamp_file": False}
    (state / "target.json").write_text(json.dumps(given))
    return Pipe([command, [str(target / "bin" / "target-jsonl"), "--config", str(state / "target.json")]])


def write_tap_config(server: Postgres, path: Path, **more: Any) -> None:
    """Write the configuration of tap-postgres."""
    given = {"host": "127.0.0.1", "port": server.port, "user": USER, "password": server.password}
    path.write_text(json.dumps({**given, "database": "postgres", "filter_schemas": ["public"], **more}))


def select_stream(catalog: dict[str, Any], table: str, cursor: str) -> dict[str, Any]:
    """Choose a table in a catalog that tap-postgres has discovered, whole or by a cursor (replication key)."""
    (stream,) = (stream for stream in catalog["streams"] if stream["tap_stream_id"] == f"public-{table}")
    method = "INCREMENTAL" if cursor else "FULL_TABLE"
    key = {"replication-key": cursor} if cursor else {}
    for entry in stream["metadata"]:
        if not entry["breadcrumb"]:
            entry["metadata"].update({"selected": True, "replication-method": method, **key})
    chosen = {**stream, "replication_method": method, **({"replication_key": cursor} if cursor else {})}
    return {"streams": [chosen]}


PEERS = (
    Peer(NULL_PEER, "limit", lambda task: _psql(task, output=os.devnull)),
    Peer(PLAIN_PEER, "limit", lambda task: _psql(task, output="rows.jsonl.gz")),
    Peer(f"chdb {CHDB}", "reader", lambda task: _script("chdb", task)),
    Peer(f"connectorx {CONNECTORX} + polars {POLARS}", "reader", lambda task: _script("connectorx", task)),
    Peer(f"duckdb {DUCKDB}", "reader", lambda task: _script("duckdb", task)),
    Peer("pg8000 + json.dumps", "reader", lambda task: _script("", task), "slow"),
    Peer(f"dlt {DLT}, connectorx", "tool", lambda task: _dlt(task, "connectorx"), "middling"),
    Peer(f"dlt {DLT}, pyarrow", "tool", lambda task: _dlt(task, "pyarrow"), "middling"),
    Peer(f"dlt {DLT}, sqlalchemy", "tool", lambda task: _dlt(task, "sqlalchemy"), "slow"),
    Peer(f"sling {SLING}", "tool", _sling, "middling"),
    Peer(f"tap-postgres {TAP} | target-jsonl {TARGET}", "tool", _tap, "slow"),
)
