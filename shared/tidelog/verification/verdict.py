"""What came of a verification: is a table's lake right, and if not, what is wrong and what is to be done."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from typing import Literal

import msgspec

from tidelog.verification.audit import Finding

How = Literal["missing", "different"]
Cause = Literal["", "hidden", "outdated", "supplied"]
"""Why a row differs: a bound in time has hidden its version; its line is from before the table was altered; a program
has written its line; or nobody knows."""

_REMEDIES = {
    "event": "put it back from a copy of the lake: the bucket keeps earlier versions of each object",
    "coverage": "put events back that were changed; if none was, tidelog backfill {table} --all",
    "segment": "put it back from a copy of the lake: the bucket keeps earlier versions of each object",
    "document": "put it back from a copy of the lake: the bucket keeps earlier versions of each object",
    "foreign": "find out who wrote it, and move it out of the lake: whoever reads all objects there reads it too",
    "summary": "tidelog rebuild, which makes it again from the ledger",
}


class Differing(msgspec.Struct, frozen=True):
    """A row that is in the database otherwise than in the lake."""

    key: str
    """The values of its primary key as JSON, with commas between them."""
    how: How
    cause: Cause
    where: str
    """The key of the object that its latest line is in; empty where it has none."""


class Verified(msgspec.Struct, frozen=True, kw_only=True):
    """What was found of one table."""

    table: str
    offset: int
    """Of the event up to which it was verified."""
    events: int
    """How many were read."""
    segments: int
    lines: int
    findings: tuple[Finding, ...] = ()
    rows: int | None = None
    """How many were compared; None where the database was not asked."""
    pending: int = 0
    """Rows whose current version the lake can't have yet."""
    gone: int = 0
    """Keys that the table no longer has."""
    keyed: bool = True
    """Whether the table has a primary key. Without one, each row has to be among the lines, as often as it is there."""
    causes: dict[Cause, int] = {}
    """How many rows differ, and why."""
    keys: tuple[Differing, ...] = ()
    """Some of them, or all."""
    reason: str = ""
    """Why rows were not compared though they should be."""

    @property
    def differing(self) -> int:
        """How many rows the lake does not have as they are, for no reason that an event tells."""
        return self.causes.get("", 0) + self.causes.get("hidden", 0)

    @property
    def is_right(self) -> bool:
        """Whether all that was asked for is proved."""
        return not (self.findings or self.differing or self.causes.get("outdated") or self.reason)

    @property
    def verdict(self) -> str:
        """All of it in a few words."""
        wrong = [
            "the ledger is broken" if self.findings else "",
            "rows differ" if self.differing else "",
            "rows are outdated" if self.causes.get("outdated") else "",
            "rows not compared" if self.reason else "",
        ]
        return ", ".join(filter(None, wrong)) or ("right" if self.rows is not None else "the ledger is right")

    def remedies(self) -> Iterator[str]:
        """Yield what is wrong in words, and what to do about it."""
        table = shlex.quote(self.table)
        for kind, remedy in _REMEDIES.items():
            if any(finding.kind == kind for finding in self.findings):
                yield f"{_PLURAL[kind]}: {remedy.format(table=table)}"
        if count := self.causes.get("hidden", 0):
            yield f"{_rows(count)} hidden by bounds in time, which no sweep has read: tidelog sweep {table}"
        if count := self.causes.get("", 0):
            yield f"{_rows(count)} not what the table says: tidelog backfill {table} --all"
        if count := self.causes.get("outdated", 0):
            yield f"{_rows(count)} as before the table was altered: tidelog backfill {table} --all"
        if count := self.causes.get("supplied", 0):
            yield f"{_rows(count)} as a program has supplied them, which is no difference"
        if self.reason:
            yield f"its rows were not compared: {self.reason}"


_PLURAL = {
    "event": "events that are missing, or not as they were written",
    "coverage": "rows that were left out, or come twice",
    "segment": "segments that are missing, or not as they were written",
    "document": "documents that are missing, or not as they were written",
    "foreign": "objects that tidelog has not written",
    "summary": "a parameter that does not say what the ledger does",
}


def _rows(count: int) -> str:
    return "1 row is" if count == 1 else f"{count:,} rows are"
