"""Processes that are measured: how long they take, and what processor time and memory they and the server use."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from benchmarks.setting import MEGABYTE, ROOT

from tidelog_sandbox.postgres import Postgres

_BRIEF = 60
_LOOK_SECONDS = 0.02
_PROC = Path("/proc")
_TICKS = os.sysconf("SC_CLK_TCK")


class ToolFailedError(Exception):
    """A tool could not be set up, or ended with an error."""

    @property
    def brief(self) -> str:
        """The end of its last line."""
        last = re.sub(r"\x1b\[[0-9;]*m", "", str(self)).strip().rpartition("\n")[2]
        return last if len(last) <= _BRIEF else f"…{last[-_BRIEF:]}"


@dataclass(frozen=True, slots=True)
class Took:
    """What a run took."""

    seconds: float
    """From the start of the first process to the end of the last."""
    client: float
    """Processor seconds of its processes and theirs."""
    server: float
    """Processor seconds of the database server meanwhile, 0 where nobody can tell."""
    peak: float
    """MB: the most that one of its processes has held; of a pipe, the sum over its parts."""


@dataclass(frozen=True, slots=True)
class Pipe:
    """Commands whose outputs are each other's inputs.

    Attributes:
        commands: the first writes, the last reads.
        environment: of all of them.
        output: where the last one's output goes; with what they say where there is none.
    """

    commands: Sequence[Sequence[str]]
    environment: Mapping[str, str] = field(default_factory=lambda: os.environ)
    output: Path | None = None


class Meter:
    """Measures processes from the start of the first to the end of the last. `stop` has to be called.

    Args:
        server: the database server that works for them.
        log: where they say what they have to say.
    """

    def __init__(self, server: Postgres, log: Path) -> None:
        self._server = server
        self._log = log
        self._open = ExitStack()
        self._errors = self._open.enter_context(log.open("wb"))
        self._processes: list[subprocess.Popen[Any]] = []
        self._peaks: dict[int, float] = {}
        self._done = threading.Event()
        self._looker = threading.Thread(target=self._look, daemon=True)
        self._looker.start()
        self._before = processor_seconds(server)
        self._started = time.perf_counter()

    def start(
        self, command: Sequence[str], environment: Mapping[str, str], *, stdin: Any = None, stdout: Any = None
    ) -> subprocess.Popen[Any]:
        """Start a process; what it says goes to the log where no other place is given."""
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment,
            stdin=stdin or subprocess.DEVNULL,
            stdout=stdout or self._errors,
            stderr=self._errors,
            start_new_session=True,
        )
        self._peaks[process.pid] = peak_of_tree(process.pid)  # It may be too short to be looked at again.
        self._processes.append(process)
        return process

    def converse(self, command: Sequence[str], environment: Mapping[str, str], line: str) -> dict[str, Any]:
        """Start a process that says when it is ready, send it a line, and return its answer; then it has to end.

        Returns:
            What it has answered, and `warm`: the seconds from when it was told.

        Raises:
            ToolFailedError: it has ended.
        """
        process = self.start(command, environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert process.stdin  # noqa: S101  # for the type: both are pipes
        assert process.stdout  # noqa: S101
        process.stdout.readline()
        told = time.perf_counter()
        with suppress(BrokenPipeError), process.stdin as commands:
            commands.write(f"{line}\n".encode())
        with process.stdout as answers:
            answer = answers.readline()
        if not answer:
            self.stop()
            raise ToolFailedError(tail(command, self._log))
        said: dict[str, Any] = json.loads(answer)
        return said | {"warm": time.perf_counter() - told}

    def open(self, path: Path) -> IO[bytes]:
        """Open a file that a process writes to."""
        return self._open.enter_context(path.open("wb"))

    def stop(self, seconds: float = 3600) -> Took:
        """Wait for all of them.

        Raises:
            ToolFailedError: one has ended with an error, or did not end in time and was killed.
        """
        alarm = threading.Timer(seconds, self.kill)
        alarm.start()
        try:
            usages = [self._end(process) for process in self._processes]
            took = time.perf_counter() - self._started
        finally:
            alarm.cancel()
            self._done.set()
            self._looker.join()
            self._open.close()
        for process in self._processes:
            if process.returncode:
                raise ToolFailedError(tail(process.args, self._log))
        server = processor_seconds(self._server) - self._before
        return Took(took, sum(usages), server, sum(self._peaks.values()) / MEGABYTE)

    def kill(self) -> None:
        """End all of them, and what they have started."""
        for process in self._processes:
            if process.returncode is None:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)

    def _end(self, process: subprocess.Popen[Any]) -> float:
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if not _PROC.exists():
            self._peaks[process.pid] = usage.ru_maxrss
        return usage.ru_utime + usage.ru_stime

    def _look(self) -> None:
        """Note what they hold: `ru_maxrss` would count what this process held when it started them."""
        while not self._done.wait(_LOOK_SECONDS):
            for process in list(self._processes):
                if process.returncode is None:
                    self._peaks[process.pid] = max(self._peaks[process.pid], peak_of_tree(process.pid))


def run(pipe: Pipe, server: Postgres, log: Path, *, seconds: float = 3600) -> Took:
    """Run commands, and measure them.

    Raises:
        ToolFailedError: one has ended with an error, or did not end in time.
    """
    meter = Meter(server, log)
    before: subprocess.Popen[Any] | None = None
    try:
        for number, command in enumerate(pipe.commands, 1):
            last = number == len(pipe.commands)
            target = subprocess.PIPE if not last else meter.open(pipe.output) if pipe.output else None
            process = meter.start(command, pipe.environment, stdin=before and before.stdout, stdout=target)
            if before and before.stdout:
                before.stdout.close()  # It is the next one's now.
            before = process
    except OSError:
        meter.kill()
        raise
    return meter.stop(seconds)


class Process:
    """A process that is asked with a line and answers with a line. Its standard error goes to a file.

    Raises:
        ToolFailedError: it has ended.
    """

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], log: Path) -> None:
        self._log = log
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                command,
                cwd=ROOT,
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=output,
                text=True,
            )
        self.said = self.hear()
        """What it said when it was ready."""

    def ask(self, line: str) -> str:
        """Send a line, and return the answer."""
        self.tell(line)
        return self.hear()

    def tell(self, line: str) -> None:
        """Send a line."""
        assert self._process.stdin  # noqa: S101  # as below
        with suppress(BrokenPipeError):  # there is no answer either
            self._process.stdin.write(f"{line}\n")
            self._process.stdin.flush()

    def hear(self) -> str:
        """Return the answer to what was sent."""
        assert self._process.stdout  # noqa: S101  # for the type: it is a pipe
        if line := self._process.stdout.readline():
            return line
        self._process.wait()
        raise ToolFailedError(tail(self._process.args, self._log))

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()


def processor_seconds(server: Postgres) -> float:
    """Return the processor seconds that a server has used: of its process and its children, also of ended ones."""
    pid = server.pid
    if not _PROC.exists() or pid is None:
        return 0
    while True:
        ended = _times(pid)
        living = [_times(child)[0] for child in _children(pid)]
        if _times(pid)[1] == ended[1]:  # None has ended meanwhile, so that each was counted once.
            return sum(ended) + sum(living)


def peak_of_tree(pid: int) -> float:
    """Return the most bytes that a process, or one that it has started, has held so far; 0 where nobody can tell."""
    try:
        status = (_PROC / str(pid) / "status").read_text()
    except OSError:
        return 0
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    return max([int(found[1]) * 1024 if found else 0, *(peak_of_tree(child) for child in _children(pid))])


def tail(command: Any, log: Path) -> str:
    """Say that a command has ended, with the end of what it has said."""
    return f"{command!r} has ended:\n{log.read_text(errors='replace')[-3000:]}"


def _children(pid: int) -> list[int]:
    found: list[int] = []
    with suppress(OSError):
        for task in (_PROC / str(pid) / "task").iterdir():
            with suppress(OSError):
                found += map(int, (task / "children").read_text().split())
    return found


def _times(pid: int) -> tuple[float, float]:
    """Return the processor seconds of a process, and of its children that have ended."""
    try:
        fields = (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0, 0
    user, system, ended_user, ended_system = (int(text) / _TICKS for text in fields[11:15])
    return user + system, ended_user + ended_system
