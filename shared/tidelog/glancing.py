"""A glance: one question tells that nothing is new in a table, by a process that has read it before.

A run that has read all there is leaves what the next one would ask: the windows, and what they stand and fall with. As
long as the ledger has not moved on, that is asked in one statement. Where its answer is not the same in every respect,
the run goes its usual way; so a glance decides nothing but that there is nothing to do.
"""

from __future__ import annotations

from datetime import datetime

import msgspec

from tidelog.catalog import glance_query
from tidelog.continuity import find_break
from tidelog.limits import Limits
from tidelog.planning import Findable, next_windows
from tidelog.state import State
from tidelog.tables import Table, TableName
from tidelog.tablesettings import TableSettings
from tidelog.windows import Snapshot

LAG = 2**30
"""Transactions after which the horizon of a table without new rows is moved up all the same."""
_TABLES = 1000
_LONGEST = 20_000
"""Characters of a question that is kept: with many partitions it would be longer than it is worth."""
_ROW = '"~t"'


class _Answer(msgspec.Struct, frozen=True):
    snapshot: Snapshot
    edition: str
    rows: int


class Glance(msgspec.Struct, frozen=True):
    """What is asked of a table, and what it was when all of it was read.

    Attributes:
        state: its state.
        table: what it is.
        settings: what its configuration says.
        noted_at: up to when its summary says that it was read.
        strategy: how its windows are found, and why so.
        question: as of `catalog.glance_query`.
    """

    state: State
    table: Table
    settings: TableSettings
    noted_at: datetime
    strategy: str
    question: str

    def is_idle(self, answer: str) -> bool:
        """Say whether an answer tells that nothing is new; if not, that says nothing."""
        found = msgspec.json.decode(answer, type=_Answer)
        snapshot = found.snapshot
        return (
            not found.rows
            and found.edition == self.table.edition
            and not snapshot.standby
            and snapshot.next - self.state.horizon <= LAG
            and find_break(self.state, snapshot, self.table) is None
        )


class Glances:
    """The questions of the tables that this process has read, of the last ones only."""

    def __init__(self) -> None:
        self._glances: dict[TableName, Glance] = {}

    def of(self, table: TableName) -> Glance | None:
        """Return what is asked of a table; None where it has to be looked at closely."""
        return self._glances.get(table)

    def keep(self, opened: Findable, state: State, limits: Limits, noted_at: datetime) -> None:
        """Keep what is to be asked next of a table of which all that its snapshot sees is read."""
        table, snapshot = opened.table, opened.snapshot
        self.forget(table.table_name)
        if snapshot.standby or state.standby or state.plans or table.kind == "m":
            return  # A standby must be asked how far it is; a materialized view can't be locked.
        strategy, windows = next_windows(opened, state, limits)
        if any(snapshot.next - window.start > LAG for _, window in windows if window.start):
            return
        rows, length = [], 0
        for leaf, window in windows:
            rows.append(f"(SELECT count(*) FROM ONLY {leaf.table_name.sql} {_ROW} WHERE {window.glance(_ROW)})")
            length += len(rows[-1])
            if length > _LONGEST:
                return
        question = glance_query(table, " + ".join(rows) or "0")
        if len(question) <= _LONGEST:
            glance = Glance(state, table, opened.settings, noted_at, f"{strategy.name}: {strategy.reason}", question)
            self._glances[table.table_name] = glance
            if len(self._glances) > _TABLES:
                del self._glances[next(iter(self._glances))]

    def forget(self, table: TableName) -> None:
        """Have a table looked at closely."""
        self._glances.pop(table, None)
