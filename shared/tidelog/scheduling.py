"""Ticks and sweeps: which tables there are, and one message for each."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from tidelog.configuration import Configuration
from tidelog.errors import UnknownTable
from tidelog.idling import Outset
from tidelog.messages import ingest, sweep
from tidelog.queues import WorkQueue
from tidelog.selection import Left, Selection
from tidelog.source import Source
from tidelog.tables import TableName


class Tick(msgspec.Struct, frozen=True):
    """What a tick did.

    Attributes:
        due: when it was due (ISO 8601).
        tables: for which a message was sent.
        skipped: met by a pattern, but of a kind that can't be ingested.
        refused: asked for or configured by name, but not there; or of a kind that can't be ingested.
        configuration: the version that it went by, 0 where there is none.
        unchanged: the other tables: nothing has changed in them, so no message was sent.
        looks: those that a message was sent for although nothing has changed, as it was their turn.
    """

    due: str
    tables: tuple[TableName, ...]
    skipped: tuple[Left, ...]
    refused: tuple[Left, ...]
    configuration: int = 0
    unchanged: tuple[TableName, ...] = ()
    looks: tuple[TableName, ...] = ()

    @property
    def stirred(self) -> tuple[TableName, ...]:
        """The tables in which something may have changed."""
        return tuple(sorted({*self.tables} - {*self.looks}))

    @property
    def idle(self) -> tuple[TableName, ...]:
        """The tables in which nothing has changed."""
        return (*self.unchanged, *self.looks)


def schedule(
    due: str,
    *,
    source: Source,
    queue: WorkQueue,
    selection: Selection,
    configuration: Configuration | None = None,
    request: str = "",
    outset: Outset | None = None,
) -> Tick:
    """Send one message per table that is not idle, or is looked at; it names the configuration to read the table by.

    Args:
        due: when the tick was due.
        source: the database.
        queue: the work queue.
        selection: which tables are taken, where the configuration does not say.
        configuration: what else is configured.
        request: id of the request of a person who may wait for it; empty for the schedule.
        outset: what is known of changes; None sends for every table.

    Raises:
        TidelogError: the database or the queue could not be reached; the tables already sent are ingested all the same.
    """
    configuration, outset = configuration or Configuration(), outset or Outset(source.relations())
    selected = configuration.selection(selection).apply(outset.relations)
    version, tally = configuration.version, outset.tallies.get
    left_out = outset.idle - outset.looks
    idle = tuple(table for table in selected.tables if table in left_out)
    asked = tuple(table for table in selected.tables if table not in left_out)
    messages = [
        ingest(
            table,
            due,
            version,
            request=request,
            tally=tally(table, ""),
            look=table in outset.looks,
            calm=outset.calm_at(table),
        )
        for table in asked
    ]
    queue.send(messages)
    refused = (*selected.refused, *configuration.unmet(outset.relations))
    looks = tuple(table for table in asked if table in outset.looks)
    return Tick(due, asked, selected.skipped, refused, version, idle, looks)


def schedule_tables(
    tables: Sequence[TableName],
    *,
    request: str,
    source: Source,
    queue: WorkQueue,
    selection: Selection,
    configuration: Configuration | None = None,
) -> tuple[TableName, ...]:
    """Have some tables of the selection ingested now, besides the ticks; return which.

    Args:
        tables: the tables.
        request: id of the request, which no other has: SQS drops a message that it has had within five minutes.
        source: the database.
        queue: the work queue.
        selection: which tables are taken, where the configuration does not say.
        configuration: what else is configured.

    Raises:
        UnknownTable: one of them is none of the selection; nothing was sent.
        TidelogError: the database or the queue could not be reached.
    """
    configuration = configuration or Configuration()
    wanted = _some("ingest", tables, configuration.selection(selection).apply(source.relations()).tables)
    queue.send([ingest(table, None, configuration.version, request=request) for table in wanted])
    return wanted


def schedule_sweep(
    tables: Sequence[TableName],
    *,
    tick: str = "",
    request: str = "",
    source: Source,
    queue: WorkQueue,
    selection: Selection,
) -> tuple[TableName, ...]:
    """Have some tables of the selection swept, or all of it; return which.

    Args:
        tables: the tables; none for all.
        tick: when it was due; empty where a person asks.
        request: id of the request of a person who may wait for it.
        source: the database.
        queue: the work queue.
        selection: which tables there may be.

    Raises:
        UnknownTable: one of them is none of the selection; nothing was sent.
        TidelogError: the database or the queue could not be reached.
    """
    selected = selection.apply(source.relations()).tables
    wanted = _some("sweep", tables, selected) or selected
    queue.send([sweep(table, tick=tick, request=request) for table in wanted])
    return wanted


def _some(operation: str, tables: Sequence[TableName], selected: Sequence[TableName]) -> tuple[TableName, ...]:
    """Return tables once each; all of them have to be selected."""
    for table in tables:
        if table not in selected:
            raise UnknownTable(operation, table, "it is none of the stack's tables", "See tidelog tables")
    return tuple(dict.fromkeys(tables))
