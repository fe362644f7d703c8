"""A glance: one question tells that nothing is new in a table, by a process that has found so before.

A run that has found nothing new leaves what the next one would ask: the windows, and what they stand and fall with. As
long as the ledger has not moved on, that is asked in one statement. Where its answer is not the same in every respect,
the run goes its usual way; so a glance decides nothing but that there is nothing to do.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from tidelog.catalog import glance_query
from tidelog.continuity import find_break
from tidelog.planning import Findable, Plan
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


@dataclass(frozen=True, slots=True)
class Glance:
    """What is asked of a table, and what it was when nothing was new in it.

    Attributes:
        state: its state.
        table: what it is.
        settings: what its configuration says.
        strategy: how its windows are found.
        question: as of `catalog.glance_query`.
    """

    state: State
    table: Table
    settings: TableSettings
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
    """The questions of the tables that this process has found idle, of the last ones only."""

    def __init__(self) -> None:
        self._glances: dict[TableName, Glance] = {}

    def of(self, table: TableName) -> Glance | None:
        """Return what is asked of a table; None where it has to be looked at closely."""
        return self._glances.get(table)

    def keep(self, opened: Findable, state: State, plan: Plan) -> None:
        """Keep what is to be asked next of a table in which a plan has found nothing new."""
        table = opened.table
        self.forget(table.table_name)
        if plan.snapshot.standby or state.standby or state.plans or not plan.whole or table.kind == "m":
            return  # A standby must be asked how far it is; a materialized view can't be locked.
        if any(plan.snapshot.next - part.window.start > LAG for part in plan.windows if part.window.start):
            return
        rows = [
            f"(SELECT count(*) FROM ONLY {part.leaf.table_name.sql} {_ROW} WHERE {part.window.glance(_ROW)})"
            for part in plan.windows
        ]
        question = glance_query(table, " + ".join(rows) or "0")
        if len(question) <= _LONGEST:
            glance = Glance(state, table, opened.settings, plan.reading.strategy, question)
            self._glances[table.table_name] = glance
            if len(self._glances) > _TABLES:
                del self._glances[next(iter(self._glances))]

    def forget(self, table: TableName) -> None:
        """Have a table looked at closely."""
        self._glances.pop(table, None)
