"""One Lambda execution environment: a process of AWS's own ``awslambdaric`` and the Runtime API that it talks to.

The process serves one invocation after the other until it fails in a way that costs it its life, as in Lambda: it
passes its time, its memory, or it exits.
"""

import contextlib
import json
import os
import queue
import selectors
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import psutil

from tidelog_sandbox.errors import SandboxError
from tidelog_sandbox.packages import interpreter
from tidelog_sandbox.runtime_api import RESPONSE_LIMIT, RuntimeApi

INIT_SECONDS = 10.0
_WATCH_SECONDS = 0.025

Kind = Literal["success", "error", "timeout", "memory", "exit", "init"]


@dataclass(frozen=True, slots=True)
class FunctionConfiguration:
    """What a function is made of and what it may use.

    Attributes:
        name: the function's name.
        arn: its ARN.
        role: the ARN of the role whose credentials it has.
        handler: ``module.function``.
        code: the directory with the handler; it is the process's working directory.
        layers: directories that are importable too.
        environment: the function's own variables, and those that lead it to the cloud.
        timeout: seconds that an invocation may take.
        memory: MiB that the process may have resident.
    """

    name: str
    arn: str
    handler: str
    code: Path
    role: str = ""
    layers: tuple[Path, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    timeout: int = 3
    memory: int = 128


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one invocation in one environment ended: with a response, or with an error as Lambda words it."""

    kind: Kind
    response: Any = None
    error: Mapping[str, Any] | None = None


class Environment:
    """An execution environment. Not for several threads at a time; close it when it is no longer wanted.

    The process starts at once; the first invocation waits until it is ready.

    Args:
        configuration: the function.
        on_log: is called with each line that the process writes.

    Raises:
        SandboxError: the process could not be started.
    """

    def __init__(self, configuration: FunctionConfiguration, on_log: Callable[[str], object]) -> None:
        self._configuration = configuration
        self._on_log = on_log
        self._api = RuntimeApi(configuration.arn)
        self._closed = False
        self._line = b""
        self._log: list[str] = []
        self._peak = 0
        self.idle_since = time.monotonic()
        self._logs, write = os.pipe()
        os.set_blocking(self._logs, False)
        try:
            self._process = self._started(write)
        except OSError as error:
            self._api.close()
            os.close(self._logs)
            raise SandboxError(f"start function {configuration.name} in {configuration.code}: {error}") from error
        finally:
            os.close(write)
        self._watched = psutil.Process(self._process.pid)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._logs, selectors.EVENT_READ, self._read_logs)
        self._selector.register(self._api.bell, selectors.EVENT_READ, self._api.hear)

    def _started(self, output: int) -> "subprocess.Popen[bytes]":
        # Should this process be killed, the environment finds its Runtime API gone when it next looks, and ends.
        return subprocess.Popen(  # noqa: S603  # this very interpreter
            [interpreter(self._configuration.layers), "-m", "awslambdaric", self._configuration.handler],
            cwd=self._configuration.code,
            env=_variables(self._configuration, self._api.address),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,  # an interrupt from the terminal is for the parent to handle
        )

    @property
    def alive(self) -> bool:
        """Whether it can take another invocation."""
        return not self._closed and self._process.poll() is None

    @property
    def peak_memory(self) -> int:
        """The most bytes that the process has had resident so far."""
        self._peak = max(self._peak, self._resident(), _high_water_mark(self._process.pid))
        return self._peak

    def invoke(self, request_id: str, payload: bytes) -> Outcome:
        """Run one invocation. An outcome but for a success or the function's own error ends the environment."""
        timeout = self._configuration.timeout
        self._api.requests.put((request_id, payload, int((time.time() + timeout) * 1000)))
        what, body = self._await(self._api.results, time.monotonic() + timeout)
        subject = f"RequestId: {request_id} Error:"
        match what:
            case "response" if len(body) <= RESPONSE_LIMIT:
                return Outcome("success", json.loads(body))
            case "error":
                return Outcome("error", error=json.loads(body))
        how = self._how_it_exited() if what == "exit" else "signal: killed"
        self.close()
        match what:
            case "response":
                message = f"Response payload size exceeded maximum allowed payload size ({RESPONSE_LIMIT} bytes)."
                return _failed("error", "Function.ResponseSizeTooLarge", message)
            case "timeout":
                return _failed("timeout", "Sandbox.Timedout", f"{subject} Task timed out after {timeout:.2f} seconds")
            case "memory":
                return _failed("memory", "Runtime.OutOfMemory", f"{subject} Runtime exited with error: {how}")
        return _failed("exit", "Runtime.ExitError", f"{subject} Runtime exited with error: {how}")

    def initialize(self) -> Outcome | None:
        """Wait for the process to be ready for its first invocation; the outcome if it does not become so."""
        if self._api.ready.is_set():
            return None
        what, body = self._await(self._api.beginnings, time.monotonic() + INIT_SECONDS)
        if what == "ready":
            return None
        how = self._how_it_exited() if what == "exit" else "signal: killed"
        self.close()
        match what:
            case "error":
                return Outcome("init", error=json.loads(body))
            case "timeout":
                return _failed("init", "Sandbox.Timedout", f"Initialization timed out after {INIT_SECONDS:.0f} seconds")
            case "memory":
                return _failed("init", "Runtime.OutOfMemory", f"Runtime exited during initialization: {how}")
        return _failed("init", "Runtime.ExitError", f"Runtime exited during initialization: {how}")

    def kill(self) -> None:
        """End the process. An invocation under way in another thread ends with it, and closes the environment."""
        if self._process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)

    def close(self) -> None:
        """End the process, if it still runs, and read what it wrote last. May be repeated."""
        if self._closed:
            return
        self._peak = self.peak_memory
        self._closed = True
        self.kill()
        self._process.wait()
        self._read_logs()
        self._end_line()
        self._selector.close()
        os.close(self._logs)
        self._api.close()

    def taken_log(self) -> list[str]:
        """The lines written since they were last taken."""
        taken, self._log = self._log, []
        return taken

    def _end_line(self) -> None:
        line, self._line = self._line, b""
        if line:
            self._keep(line)

    def _keep(self, line: bytes) -> None:
        text = line.decode(errors="replace")
        self._log.append(text)
        self._on_log(text)

    def _how_it_exited(self) -> str:
        code = self._process.wait()
        return f"signal: {signal.strsignal(-code)}" if code < 0 else f"exit status {code}"

    def _await(self, posts: "queue.SimpleQueue[tuple[str, bytes]]", deadline: float) -> tuple[str, bytes]:
        """The next post; meanwhile the logs are read, and the process is watched, which may post too."""
        while True:
            left = deadline - time.monotonic()
            for key, _ in self._selector.select(max(0, min(_WATCH_SECONDS, left))):
                key.data()
            ended = self._process.poll() is not None
            try:
                post = posts.get_nowait()
            except queue.Empty:
                pass
            else:
                self._read_logs()  # what the function wrote before it answered
                self._end_line()
                return post
            if ended:
                return ("exit", b"")
            self._peak = max(self._peak, self._resident())
            if self._peak > self._configuration.memory << 20:
                return ("memory", b"")
            if left <= 0:
                return ("timeout", b"")

    def _resident(self) -> int:
        """The bytes that the process has resident now; zero if it has ended.

        Address space cannot be limited instead: threads reserve far more of it than they use.
        """
        try:
            resident: int = self._watched.memory_info().rss
        except psutil.Error:
            return 0
        return resident

    def _read_logs(self) -> None:
        try:
            while block := os.read(self._logs, 65536):
                *lines, self._line = (self._line + block).split(b"\n")
                for line in lines:
                    self._keep(line)
        except BlockingIOError:
            return
        if not self._closed and self._logs in self._selector.get_map():
            self._selector.unregister(self._logs)  # the process has closed its output; that would keep it busy


def _failed(kind: Kind, error_type: str, message: str) -> Outcome:
    return Outcome(kind, error={"errorType": error_type, "errorMessage": message})


def _high_water_mark(pid: int) -> int:
    """What the kernel remembers of a process's greatest resident memory, in bytes; zero where it does not."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    marks = (line.split() for line in status.splitlines() if line.startswith("VmHWM:"))
    return next((int(mark[1]) * 1024 for mark in marks), 0)


def _variables(configuration: FunctionConfiguration, address: str) -> dict[str, str]:
    """The environment of the process: what Lambda sets, then the function's own. Nothing of this process but PATH."""
    name = configuration.name
    return {
        "PATH": os.environ.get("PATH", os.defpath),
        "LANG": "en_US.UTF-8",
        "TZ": ":UTC",
        "PYTHONUNBUFFERED": "1",
        "PYTHONPATH": os.pathsep.join(str(path) for path in (configuration.code, *configuration.layers)),
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_EXECUTION_ENV": f"AWS_Lambda_python{sys.version_info.major}.{sys.version_info.minor}",
        "AWS_LAMBDA_FUNCTION_NAME": name,
        "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(configuration.memory),
        "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
        "AWS_LAMBDA_LOG_GROUP_NAME": f"/aws/lambda/{name}",
        "AWS_LAMBDA_LOG_STREAM_NAME": time.strftime("%Y/%m/%d/[$LATEST]", time.gmtime()) + uuid.uuid4().hex,
        "AWS_LAMBDA_RUNTIME_API": address,
        "LAMBDA_TASK_ROOT": str(configuration.code),
        "_HANDLER": configuration.handler,
        **configuration.environment,
    }
