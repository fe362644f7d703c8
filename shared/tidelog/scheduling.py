"""Ticks and sweeps: which tables there are, and one message for each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tidelog.errors import UnknownTable
from tidelog.messages import ingest, sweep
from tidelog.queues import WorkQueue
from tidelog.selection import Left, Selection
from tidelog.source import Source
from tidelog.tables import TableName


@dataclass(frozen=True, slots=True)
class Tick:
    """What a tick did.

    Attributes:
        due: when it was due (ISO 8601).
        tables: for which a message was sent.
        skipped: met by a pattern, but of a kind that can't be ingested.
        refused: asked for by name, but not there or of a kind that can't be ingested.
    """

    due: str
    tables: tuple[TableName, ...]
    skipped: tuple[Left, ...]
    refused: tuple[Left, ...]


def schedule(due: str, *, source: Source, queue: WorkQueue, selection: Selection) -> Tick:
    """Send one message per table of the selection.

    Raises:
        TidelogError: the database or the queue could not be reached; the tables already sent are ingested all the same.
    """
    selected = selection.apply(source.relations())
    queue.send([ingest(table, due) for table in selected.tables])
    return Tick(due, selected.tables, selected.skipped, selected.refused)


def schedule_sweep(
    request: str, tables: Sequence[TableName], *, source: Source, queue: WorkQueue, selection: Selection
) -> tuple[TableName, ...]:
    """Have some tables of the selection swept, or all of it; return which.

    Raises:
        UnknownTable: one of them is none of the selection; nothing was sent.
        TidelogError: the database or the queue could not be reached.
    """
    selected = selection.apply(source.relations()).tables
    for table in tables:
        if table not in selected:
            raise UnknownTable("sweep", table, "it is none of the stack's tables", "See tidelog tables")
    wanted = tuple(dict.fromkeys(tables)) or selected
    queue.send([sweep(table, request) for table in wanted])
    return wanted
