"""Calls to AWS that go wrong when a test says so."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from botocore.exceptions import ClientError


class KilledError(BaseException):
    """The process is dead; no code of ours can catch this, and no call of it reaches AWS any more."""


class Step(NamedTuple):
    """Calls of an operation on keys that begin so."""

    operation: str
    key: str = ""


DESCRIBE = Step("put_object", "schema/")
CREATE = Step("create_multipart_upload")
PART = Step("upload_part")
COMMIT = Step("put_object", "ledger/")
PUBLISH = Step("complete_multipart_upload")
PROJECT = Step("put_parameter")
STEPS = (CREATE, PART, COMMIT, PUBLISH, PROJECT)
"""Of every run that finds rows."""


class Process:
    """A worker's process, seen from AWS: the calls that it makes, and what happens at some of them."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self._dead = False
        self._faults: list[tuple[str, Step, Callable[[], object]]] = []

    def at(self, when: str, step: Step, deed: Callable[[], object]) -> None:
        """Have something done "before" or "after" the next call of a step; it may raise what it wants."""
        self._faults.append((when, step, deed))

    def kill(self) -> None:
        """Kill the process."""
        self._dead = True
        raise KilledError

    def client(self, client: Any) -> Any:
        """Return a client of AWS as this process has it."""
        return _Client(self, client)

    def call(self, operation: str, real: Callable[..., Any], arguments: dict[str, Any]) -> Any:
        """Make a call."""
        if self._dead:
            raise KilledError
        key = str(arguments.get("Key", arguments.get("Name", "")))
        self.calls.append(operation)
        self._strike("before", operation, key)
        answer = real(**arguments)
        self._strike("after", operation, key)
        return answer

    def _strike(self, when: str, operation: str, key: str) -> None:
        for fault in self._faults:
            moment, step, deed = fault
            if (moment, step.operation) == (when, operation) and key.startswith(step.key):
                self._faults.remove(fault)
                deed()
                return


class _Client:
    def __init__(self, process: Process, client: Any) -> None:
        self._process = process
        self._client = client

    def __getattr__(self, operation: str) -> Any:
        real = getattr(self._client, operation)
        if operation in ("exceptions", "meta", "get_paginator"):
            return real
        return lambda **arguments: self._process.call(operation, real, arguments)


def refusal(code: str) -> Callable[[], None]:
    """Return a deed that raises what boto3 raises when AWS answers with some code."""

    def refuse() -> None:
        raise ClientError({"Error": {"Code": code, "Message": ""}}, "call")

    return refuse
