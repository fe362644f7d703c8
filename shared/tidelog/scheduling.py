"""A tick: which tables there are, and one message for each."""

from __future__ import annotations

from dataclasses import dataclass

from tidelog.messages import ingest
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
