"""What was altered in a table since its last run: recorded before anything is read, and what follows from it."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from contextlib import suppress

from tidelog.errors import TidelogError
from tidelog.events import PartitionsChanged, SchemaChanged, TimelineStarted
from tidelog.opening import OpenTable
from tidelog.parts import Parts
from tidelog.schema import listed
from tidelog.state import State
from tidelog.tables import Leaf, TableName
from tidelog.windows import Snapshot

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
        written = [each for each in (state.schema, *state.others) if each != document.fingerprint]
        if not written:
            return state
        self._segments.describe(table, document)
        if state.schema is None:
            return state
        begins = not state.horizon  # The table is read whole anyway: it is another one, or in another database.
        alike = {leaf.oid for leaf in opened.table.leaves} == set(state.leaves)  # Others have other files anyway.
        rewritten = alike and state.files not in ("", opened.table.files)
        found = [
            document.compare(
                self._ledger.schema(table, each), filled=opened.table.filled, rewritten=rewritten, anew=begins
            )
            for each in written
            if each is not None
        ]
        outdated = "" if begins else next((each.outdated for each in found if each.outdated), "")
        again = bool(outdated) and opened.table.size <= self._limits.of(opened.settings).chunk_bytes
        remedy = reread(table) if outdated and not again else ""
        words = found[0].words
        if remedy and any(not past.here for past in state.past.values()):
            words += "; partitions that are away come whole if they come back"
        changed = SchemaChanged(document.fingerprint, words, outdated, again, remedy)
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
        back = [leaf for leaf in opened.table.leaves if leaf.oid not in older.names]
        again = [leaf for leaf in back if _may_differ(leaf, state, opened.snapshot)]
        words = now.difference(older, there)
        if again:
            words += f"; read whole, as it may have been altered: {listed([str(leaf.table_name) for leaf in again])}"
        changed = PartitionsChanged(now.fingerprint, words, tuple(leaf.oid for leaf in again))
        return self._ledger.append(table, state, changed, finished=finished).state


def _may_differ(leaf: Leaf, state: State, snapshot: Snapshot) -> bool:
    """Say whether rows of a partition that comes back may read otherwise than its lines, without having new versions.

    A column may have been added with a value while it was away, or dropped and added under the same name. When it was
    added is not known: coming back is written down in the catalog's row of each column, but for those that are dropped.
    Where the relation was ever written anew, as by VACUUM FULL, it is not even known whether one had a value.
    """
    if leaf.oid in state.leaves:
        horizon = state.horizon
    elif leaf.oid in state.past:
        horizon = state.past[leaf.oid].horizon
    else:
        return False  # It was never read, or counts as such.
    rewritten = leaf.filenode != leaf.oid  # They are the same at first.
    return leaf.filled or rewritten or (leaf.dropped is not None and snapshot.next - leaf.dropped >= horizon)
