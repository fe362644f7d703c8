"""The tools that are compared, each made to poll a table again and again: tidelog, dlt, tap-postgres.

Each keeps its state from poll to poll. It is set up as its documentation has it for a table with a column that tells of
changes, and once more with what it has against late commits: dlt with a lag, by which it looks back, and tap-postgres
with a filter that holds back what is recent. dlt and tap-postgres are in environments of their own under
`.tidelog/peers`, made the first time.
"""

from __future__ import annotations

import gzip
import itertools
import json
import os
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from benchmarks.environments import environment_of, python_of
from benchmarks.peers import select_stream, write_tap_config
from benchmarks.processes import Process, ToolFailedError, tail
from benchmarks.setting import ROOT, Store, on_lambda
from benchmarks.workload import TABLE, Version

from tidelog_sandbox.postgres import Postgres


@dataclass(frozen=True, slots=True)
class Poll:
    """One poll of a tool, by `time.monotonic`, and the row versions that it has written."""

    began: float
    ended: float
    versions: tuple[Version, ...]


class Tool(ABC):
    """A tool that can be made to poll. As a context it is ended at the end of the block.

    Args:
        name: of the tool, with its version and how it is set up.
        directory: where it keeps its files.
    """

    def __init__(self, name: str, directory: Path) -> None:
        self.name = name
        self.directory = directory
        self.polls: list[Poll] = []
        self.settles = 0.0
        """How many seconds after the last change it has to be polled until it has everything."""
        self.resources = ExitStack()
        directory.mkdir(parents=True)

    def poll(self) -> None:
        """Have the tool extract what is new to it, and note what it has written.

        Raises:
            ToolFailedError: with the end of what it has said.
        """
        began = time.monotonic()
        written = self.extract()
        ended = time.monotonic()
        versions = tuple((row["id"], row["version"]) for row in self.rows(written))
        self.polls.append(Poll(began, ended, versions))

    @abstractmethod
    def extract(self) -> Sequence[str]:
        """Run once; return the names of what was written."""

    @abstractmethod
    def rows(self, written: Sequence[str]) -> Iterator[dict[str, Any]]:
        """Read what was written."""

    def close(self) -> None:
        """End the tool."""
        self.resources.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Tidelog(Tool):
    """tidelog: a worker's process, which runs the table at each poll.

    Args:
        environment: of the worker.
        store: the S3 server with its lake.
        bucket: the lake.
        strategy: how the worker is to find the rows of an increment: the begin of what it says of it.
    """

    def __init__(
        self, name: str, directory: Path, *, environment: Mapping[str, str], store: Store, bucket: str, strategy: str
    ) -> None:
        super().__init__(name, directory)
        self._client = store.client
        self._bucket = bucket
        self._strategy = strategy
        command = on_lambda("worker")
        self._process = self.resources.enter_context(closing(Process(command, environment, directory / "log")))

    def extract(self) -> Sequence[str]:
        """Run the table; return the key of the segment, if there is one."""
        said = json.loads(self._process.ask(f"public.{TABLE}"))
        if not said["strategy"].startswith(self._strategy):
            raise ToolFailedError(f"{self.name} found the rows by {said['strategy']}")
        return [said["key"]] if said["key"] else []

    def rows(self, written: Sequence[str]) -> Iterator[dict[str, Any]]:
        """Read segments."""
        for key in written:
            body = self._client.get_object(Bucket=self._bucket, Key=key)["Body"].read()
            yield from map(json.loads, gzip.decompress(body).splitlines())


class Dlt(Tool):
    """dlt: one process, which runs its pipeline at each poll. See `scripts/dlt_poll.py`.

    Args:
        server: the database.
        lag: how many seconds before the latest `updated_at` it looks back; 0 for not at all.
    """

    def __init__(self, name: str, directory: Path, *, server: Postgres, lag: float) -> None:
        super().__init__(name, directory)
        environment = {
            **os.environ,
            "SOURCES__SQL_DATABASE__CREDENTIALS": server.url().replace("://", "+psycopg2://"),
            "RUNTIME__DLTHUB_TELEMETRY": "false",
            "DLT_DATA_DIR": str(directory),
        }
        script = str(ROOT / "benchmarks" / "scripts" / "dlt_poll.py")
        command = [python_of("dlt"), script, str(directory), TABLE, str(lag)]
        self._process = self.resources.enter_context(closing(Process(command, environment, directory / "log")))
        self._known: set[Path] = set()

    def extract(self) -> Sequence[str]:
        """Run the pipeline; return the files that are new."""
        self._process.ask("poll")
        files = set((self.directory / "lake" / "public" / TABLE).glob("*.jsonl*"))
        new, self._known = files - self._known, files
        return sorted(map(str, new))

    def rows(self, written: Sequence[str]) -> Iterator[dict[str, Any]]:
        """Read files, compressed or not."""
        for path in map(Path, written):
            text = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
            yield from map(json.loads, text.splitlines())


class TapPostgres(Tool):
    """tap-postgres: its command at each poll, given the last state that it has said, as Meltano does.

    Args:
        server: the database.
        hold_back: rows whose `updated_at` is fewer seconds ago are left for a later poll.
    """

    def __init__(self, name: str, directory: Path, *, server: Postgres, hold_back: float) -> None:
        super().__init__(name, directory)
        self.settles = hold_back
        self._numbers = itertools.count()
        self._command = str(environment_of("tap-postgres") / "bin" / "tap-postgres")
        self._config, self._catalog, self._state = (
            directory / f"{name}.json" for name in ("config", "catalog", "state")
        )
        clause = f"updated_at < now() - interval '{hold_back} seconds'"
        held = {"stream_options": {f"public-{TABLE}": {"custom_where_clauses": [clause]}}} if hold_back else {}
        write_tap_config(server, self._config, **held)
        found = self._run("--discover").read_text()
        self._catalog.write_text(json.dumps(select_stream(json.loads(found), TABLE, "updated_at")))

    def extract(self) -> Sequence[str]:
        """Run the command with the last state; return the file of its messages."""
        state = ["--state", str(self._state)] if self._state.exists() else []
        said = self._run("--catalog", str(self._catalog), *state)
        states = [message["value"] for message in messages(said) if message["type"] == "STATE"]
        if states:
            self._state.write_text(json.dumps(states[-1]))
        return [str(said)]

    def rows(self, written: Sequence[str]) -> Iterator[dict[str, Any]]:
        """Read the records among messages."""
        for path in written:
            for message in messages(Path(path)):
                if message["type"] == "RECORD":
                    yield message["record"]

    def _run(self, *arguments: str) -> Path:
        number = next(self._numbers)
        output, log = (self.directory / f"{number}.{suffix}" for suffix in ("jsonl", "log"))
        command = [self._command, "--config", str(self._config), *arguments]
        with output.open("wb") as out, log.open("wb") as err:
            done = subprocess.run(command, cwd=self.directory, stdout=out, stderr=err, check=False)
        if done.returncode:
            raise ToolFailedError(tail(command, log))
        return output


def messages(path: Path) -> Iterator[dict[str, Any]]:
    """Read the messages of a Singer tap."""
    with path.open() as lines:
        yield from map(json.loads, lines)
