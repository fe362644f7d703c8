"""What was altered in a table since its last run: recorded before anything is read, and what follows from it."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from contextlib import suppress

from tidelog.errors import TidelogError
from tidelog.events import PartitionsChanged, SchemaChanged, TimelineStarted
from tidelog.opening import OpenTable
from tidelog.parts import Parts
from tidelog.state import State
from tidelog.tables import TableName

Tell = Callable[[TableName, SchemaChanged | TimelineStarted], object]
"""Tells somebody of what has to be followed by a backfill."""


def reread(table: TableName) -> str:
    """Return the command that has all rows of a table read again."""
    return f"tidelog backfill {shlex.quote(str(table))} --all"


class Altering:
    """Records what was altered.

    Args:
        parts: what it works with.
        tell: tells of what a run does not make good itself.
    """

    def __init__(self, parts: Parts, tell: Tell) -> None:
        self._segments = parts.segments
        self._ledger = parts.ledger
        self._limits = parts.limits
        self._tell = tell

    def record(self, opened: OpenTable, state: State, *, finished: int) -> State:
        """Record how a table differs from what its state says; return the state after that.

        Where lines of before are outdated by it, a table that one run can read is read again by the run that follows on
        this state; of a larger one somebody is told. That comes before the event: rather twice than never.

        Raises:
            OffsetTakenError: another event came first.
        """
        return self._partitions(opened, self._columns(opened, state, finished), finished)

    def _columns(self, opened: OpenTable, state: State, finished: int) -> State:
        table, document = opened.table.table_name, opened.table.document()
        if state.schema == document.fingerprint:
            return state
        self._segments.describe(table, document)
        if state.schema is None:
            return state
        # Without a horizon the table is read whole anyway: it is another one, or in another database.
        older, begins = self._ledger.schema(table, state.schema), not state.horizon
        found = document.compare(older, filled=opened.table.filled, anew=begins)
        outdated = "" if begins else found.outdated
        again = bool(outdated) and opened.table.size <= self._limits.of(opened.settings).chunk_bytes
        remedy = reread(table) if outdated and not again else ""
        changed = SchemaChanged(document.fingerprint, found.words, outdated, again, remedy)
        if remedy:
            with suppress(TidelogError):  # The event says it too.
                self._tell(table, changed)
        return self._ledger.append(table, state, changed, finished=finished).state

    def _partitions(self, opened: OpenTable, state: State, finished: int) -> State:
        table, now = opened.table.table_name, opened.table.partitions
        if now is None or state.partitions == now.fingerprint:
            return state
        self._segments.describe(table, now)
        if state.partitions is None:
            return state  # The first reading says which there are.
        older = self._ledger.partitions(table, state.partitions)
        there = opened.there(oid for oid in older.names if oid not in now.names)
        changed = PartitionsChanged(now.fingerprint, now.difference(older, there))
        return self._ledger.append(table, state, changed, finished=finished).state
