"""A Lambda function: its execution environments, and what comes of its invocations."""

import json
import math
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from tidelog_sandbox.errors import SandboxError
from tidelog_sandbox.runtime import Environment, FunctionConfiguration, Kind

IDLE_SECONDS = 60.0
"""How long an environment without work is kept."""


@dataclass(frozen=True, slots=True)
class Invocation:
    """One finished invocation of a function.

    Attributes:
        function: the function's name.
        request_id: what its logs call it.
        payload: the event it was given.
        kind: how it ended. ``error`` is the function's own, the others but ``success`` killed the environment.
        response: what the function returned, if it did.
        error: ``errorType``, ``errorMessage`` and, of the function's own, ``stackTrace``.
        duration: seconds, without the start of the environment.
        billed: milliseconds, rounded up.
        peak_memory: the most bytes that the environment has had resident since it started.
        log: the lines that it wrote.
        cold: whether the environment was started for it.
        record: the SQS record that caused it, if one did (of a batch the first).
    """

    function: str
    request_id: str
    payload: Any
    kind: Kind
    response: Any
    error: Mapping[str, Any] | None
    duration: float
    billed: int
    peak_memory: int
    log: tuple[str, ...]
    cold: bool
    record: Mapping[str, Any] | None = None

    @property
    def succeeded(self) -> bool:
        """Whether the function returned."""
        return self.kind == "success"


Listener = Callable[[Invocation], object]
LogListener = Callable[[str, str], object]


class Function:
    """A deployed function. Each invocation gets a warm environment, or a new one.

    Args:
        configuration: what the function is.
        on_invocation: is called with each finished invocation, in the thread that made it.
        on_log: is called with the function's name and each line, as it is written.
    """

    def __init__(self, configuration: FunctionConfiguration, on_invocation: Listener, on_log: LogListener) -> None:
        self.configuration = configuration
        self._on_invocation = on_invocation
        self._on_log = on_log
        self._lock = threading.Lock()
        self._idle: list[Environment] = []
        self._busy: set[Environment] = set()
        self._payloads: dict[Environment, Any] = {}
        self._running = 0
        self._closed = False

    @property
    def busy(self) -> int:
        """How many invocations are under way; one ends when its listener has returned."""
        with self._lock:
            return self._running

    @property
    def environments(self) -> int:
        """How many environments there are."""
        with self._lock:
            return len(self._busy) + len(self._idle)

    def invoke(self, payload: Any, *, record: Mapping[str, Any] | None = None) -> Invocation:
        """Run the function with a payload, which must be JSON, and wait for it. What it raises is in the result.

        Raises:
            SandboxError: the function is closed, or its process could not be started.
        """
        with self._lock:
            self._running += 1
        try:
            invocation = self._run(payload, record)
            self._on_invocation(invocation)
        finally:
            with self._lock:
                self._running -= 1
        return invocation

    def _run(self, payload: Any, record: Mapping[str, Any] | None) -> Invocation:
        event = json.dumps(payload).encode()
        environment, cold = self._take()
        request_id = str(uuid.uuid4())
        begun = time.monotonic()
        try:
            outcome = environment.initialize()
            if outcome is None:
                begun = time.monotonic()
                with self._lock:
                    self._payloads[environment] = payload
                outcome = environment.invoke(request_id, event)
        finally:
            with self._lock:
                self._payloads.pop(environment, None)
            duration = time.monotonic() - begun
            peak_memory, lines = environment.peak_memory, environment.taken_log()
            self._put_back(environment)
        return Invocation(
            function=self.configuration.name,
            request_id=request_id,
            payload=payload,
            kind=outcome.kind,
            response=outcome.response,
            error=outcome.error,
            duration=duration,
            billed=math.ceil(duration * 1000),
            peak_memory=peak_memory,
            log=tuple(lines),
            cold=cold,
            record=record,
        )

    def reap(self, idle_seconds: float = 0.0) -> None:
        """End the environments that have been without work for some seconds."""
        latest = time.monotonic() - idle_seconds
        with self._lock:
            reaped = [environment for environment in self._idle if environment.idle_since <= latest]
            self._idle = [environment for environment in self._idle if environment not in reaped]
        for environment in reaped:
            environment.close()

    def kill(self, is_wanted: Callable[[Any], bool]) -> bool:
        """Kill the process of one invocation under way whose payload is wanted; say whether there was one."""
        with self._lock:
            found = next((each for each, payload in self._payloads.items() if is_wanted(payload)), None)
            if found:
                found.kill()
        return found is not None

    def close(self) -> None:
        """End every environment, those at work too: their invocations fail."""
        with self._lock:
            self._closed = True
            busy = list(self._busy)
        for environment in busy:
            environment.kill()
        self.reap()

    def _take(self) -> tuple[Environment, bool]:
        """An environment for one invocation, and whether it is new. The last one used is taken first."""
        with self._lock:
            if self._closed:
                raise SandboxError(f"invoke function {self.configuration.name}: the sandbox is closed")
            dead = [environment for environment in self._idle if not environment.alive]
            self._idle = [environment for environment in self._idle if environment not in dead]
            environment = self._idle.pop() if self._idle else None
            cold = environment is None
            if environment is None:
                environment = Environment(self.configuration, lambda line: self._on_log(self.configuration.name, line))
            self._busy.add(environment)
        for each in dead:
            each.close()
        return environment, cold

    def _put_back(self, environment: Environment) -> None:
        """Make an environment idle again, or end it."""
        with self._lock:
            self._busy.discard(environment)
            keep = environment.alive and not self._closed
            if keep:
                environment.idle_since = time.monotonic()
                self._idle.append(environment)
        if not keep:
            environment.close()
        self.reap(IDLE_SECONDS)
