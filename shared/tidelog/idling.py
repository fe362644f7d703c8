"""Which tables are idle: nothing has changed in them since a run that has left nothing unread.

A message carries the tally that its table had when the tick asked the server. The run that it leads to begins later, so
it sees all that was counted, and if it leaves nothing of that unread it notes the tally in the table's summary. As long
as the table has it, there is nothing new to read, and no message is sent. All else that may happen, a failed run, a
message that is lost, a plan under way, another scheduler, leaves a tally that is not the table's, so it is asked for
again. Nothing but that comparison decides. Where it was made it need not be made again: a tick remembers for the next
one what it found read up to which tally, so that it has to ask for the summaries of the other tables only.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import TypeVar
from zlib import crc32

import msgspec

from tidelog.configuration import Configuration
from tidelog.errors import Permanent, TidelogError
from tidelog.memory import VERSION, Memory, Remembered
from tidelog.parameters import Parameters, Summary
from tidelog.selection import Selection
from tidelog.source import Source
from tidelog.tables import Relation, TableName
from tidelog.tallies import Tallied

_T = TypeVar("_T")
_MORE = 500
"""Of so many tables that are known to be idle the summaries are read all the same: where there are more, by chance."""


class Outset(msgspec.Struct, frozen=True):
    """What is known when a tick begins.

    Attributes:
        relations: what there is in the database.
        tallies: of its tables; nothing where the server counts nothing, or nobody goes by it.
        known: the summaries of tables that may have changed, and of some others; None where they were not read.
        before: what the last tick has left; None where there is nothing.
        idle: the tables in which nothing has changed.
        looks: those of them whose turn it is to be looked at for certain.
    """

    relations: Sequence[Relation]
    tallies: Mapping[TableName, str] = msgspec.field(default_factory=dict)
    known: Mapping[TableName, Summary] | None = None
    before: Remembered | None = None
    idle: frozenset[TableName] = frozenset()
    looks: frozenset[TableName] = frozenset()

    def calm_at(self, table: TableName) -> datetime | None:
        """Return when the last tick was at which a table was idle; None where that is not known."""
        return self.before.calm_at(table) if self.before else None


class Idling:
    """Finds out before a tick which tables are idle, and remembers it for the next one.

    Args:
        source: the database.
        parameters: up to which tally each table is read.
        memory: what the last tick has left.
        looks: after so many ticks a table is asked for although it is idle; with 1 nobody looks for idle ones.
        now: the clock, with a zone.
        warn: is told why a tick asks for every table although it should not have to.
    """

    def __init__(
        self,
        *,
        source: Source,
        parameters: Parameters,
        memory: Memory,
        looks: int,
        now: Callable[[], datetime],
        warn: Callable[[str], object],
    ) -> None:
        self._source = source
        self._parameters = parameters
        self._memory = memory
        self._looks = looks
        self._now = now
        self._warn = warn

    def begin(self, configuration: Configuration, selection: Selection, *, everything: bool = False) -> Outset:
        """Look at the database, once, and at what is known of its tables.

        What can't be read of the latter leads to a message for every table, and to no error.

        Args:
            configuration: what tables are read by.
            selection: which tables are taken, where the configuration does not say.
            everything: whether a message is sent for every table, also for idle ones.

        Raises:
            TidelogError: the database could not be reached.
        """
        if self._looks <= 1:
            return Outset(self._source.relations())
        tallied = self._tallied()
        before = self._or_none(self._memory.read)
        tallies = tallied.tallies(configuration.version, lake=self._memory.bucket)
        taken = configuration.selection(selection).apply(tallied.relations).tables
        proven = before.idle if before else {}
        calm = [table for table in taken if proven.get(str(table), "") == tallies.get(table)]
        calm = random.sample(calm, max(0, len(calm) - _MORE))
        if everything or not before:  # No summary decides anything.
            return Outset(tallied.relations, tallies, None, before)
        known = self._or_none(lambda: self._parameters.read_some(sorted({*taken} - {*calm})))
        idle = frozenset[TableName]()
        if known is not None:
            idle = frozenset(calm).union(table for table in known if known[table].tally == tallies.get(table))
        looks = frozenset(table for table in idle if is_turn(table, before.number + 1, self._looks))
        return Outset(tallied.relations, tallies, known, before, idle, looks)

    def end(
        self, outset: Outset, due: str, tables: Sequence[TableName], idle: Sequence[TableName]
    ) -> Mapping[TableName, datetime]:
        """Remember a tick whose messages were sent; return since when each table is asked for, where that is known.

        Args:
            outset: what was known when it began.
            due: when it was due.
            tables: those that may have changed.
            idle: those that have not.

        Raises:
            StoreUnreachable, AccessDenied: it could not be remembered. If ticks went on with that number, the turn of
                some idle tables would never come.
        """
        if self._looks <= 1:
            return {}
        now = self._now()
        number = outset.before.number + 1 if outset.before else 0
        before = outset.before.asked if outset.before else {}
        asked = {table: before.get(str(table), now) for table in tables}
        remembered = {str(table): since for table, since in asked.items()}
        read = {str(table): outset.tallies[table] for table in idle}
        calm = {str(table): at for table in tables if (at := outset.calm_at(table))}
        self._memory.write(Remembered(VERSION, number, due, now, remembered, read, calm))
        return asked if outset.before else {}

    def _tallied(self) -> Tallied:
        """Ask the server what it has counted; one that does not say is asked for its relations alone."""
        try:
            return self._source.tallied()
        except Permanent as error:
            self._warn(f"{error}")
            return Tallied(None, self._source.relations())

    def _or_none(self, read: Callable[[], _T]) -> _T | None:
        try:
            return read()
        except TidelogError as error:
            self._warn(f"{error}")
            return None


def is_turn(table: TableName, number: int, looks: int) -> bool:
    """Say whether a table's turn to be looked at comes at a tick: once in so many ticks, for other tables at others."""
    return (number + crc32(f"{table}".encode())) % looks == 0
