"""Calls to AWS that go wrong when a test says so."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from botocore.exceptions import ClientError


class KilledError(BaseException):
    """The process is dead; no code of ours can catch this, and no call of it reaches AWS any more."""


class Process:
    """A worker's process, seen from AWS: the calls that it makes, and what happens at some of them."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self._dead = False
        self._faults: list[tuple[str, str, str, Callable[[], object]]] = []

    def at(
        self,
        operation: str,
        key: str = "",
        *,
        before: Callable[[], object] | None = None,
        after: Callable[[], object] | None = None,
    ) -> None:
        """Have something done at the next call of an operation on keys that begin so; it may raise what it wants."""
        for when, deed in (("before", before), ("after", after)):
            if deed:
                self._faults.append((operation, key, when, deed))

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
        self._strike(operation, key, "before")
        answer = real(**arguments)
        self._strike(operation, key, "after")
        return answer

    def _strike(self, operation: str, key: str, when: str) -> None:
        for fault in self._faults:
            if (fault[0], fault[2]) == (operation, when) and key.startswith(fault[1]):
                self._faults.remove(fault)
                fault[3]()
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
