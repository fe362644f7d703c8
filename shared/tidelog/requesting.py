"""Requests: a backfill is checked against the database before anything is sent, and what it will take is told."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec
from msgspec.structs import replace

from tidelog.backfills import divide
from tidelog.errors import InvalidMessage, NotIngestible, UnknownTable
from tidelog.messages import Backfill, Message, read
from tidelog.parameters import Parameters
from tidelog.queues import WorkQueue
from tidelog.selection import Selection
from tidelog.source import Source
from tidelog.tables import TableName

_SECONDS = 40


class Answer(msgspec.Struct, frozen=True):
    """What was asked for, of one table.

    Attributes:
        table: the table.
        request: by which its plan can be found; empty where nothing was sent.
        since: begin of the range in UTC; empty where all rows are meant.
        until: its end, which is not part of it.
        rows: how many, as PostgreSQL's planner estimates.
        bytes: on disk, that are read or looked through.
        chunks: in how many chunks.
        reason: how they are read, and why so.
    """

    table: str
    request: str
    since: str
    until: str
    rows: int
    bytes: int
    chunks: int
    reason: str


class Requests:
    """Takes requests for backfills.

    Args:
        source: the database.
        queue: the queue of backfills.
        parameters: says which tables were ingested.
        chunk_bytes: of a chunk, where the table's configuration does not say.
        new_id: gives each request an id of its own.
    """

    def __init__(
        self,
        *,
        source: Source,
        queue: WorkQueue,
        parameters: Parameters,
        chunk_bytes: int,
        new_id: Callable[[], str],
    ) -> None:
        self._source = source
        self._queue = queue
        self._parameters = parameters
        self._chunk_bytes = chunk_bytes
        self._new_id = new_id

    def take(self, asked: Mapping[str, Any], selection: Selection) -> list[Answer]:
        """Check a request, and send it unless it is a dry run. Nothing is sent if anything is wrong with any table.

        Args:
            asked: a `backfill` message; `tables` in place of `table` names several, `dry_run` only asks.
            selection: which tables are taken.

        Raises:
            InvalidMessage: naming the field, the value and the remedy.
            UnknownTable, UnknownColumn, NotIngestible: the database has no such thing, or it can't be read.
            TidelogError: as it says.
        """
        wanted, dry = _wanted(asked)
        if not dry:
            wanted = [replace(one, request=one.request or self._new_id()) for one in wanted]
        answers = [self._checked(one, selection) for one in wanted]
        if not dry:
            self._queue.send(wanted)
        return answers

    def _checked(self, wanted: Backfill, selection: Selection) -> Answer:
        table = wanted.table_name
        with self._source.open(table, seconds=_SECONDS) as opened:
            if not selection.takes(str(table)):
                raise UnknownTable("backfill", table, "it is none of the stack's tables", "See tidelog tables")
            division = divide(opened, wanted, opened.settings.chunk_bytes or self._chunk_bytes)
        summary = self._parameters.read(table)
        if summary is None or not summary.horizon:
            reason = "nothing was ingested of it yet"
            raise NotIngestible("backfill", table, reason, "Wait for its first tick, which takes all of it")
        return Answer(
            table=str(table),
            request=wanted.request,
            since=wanted.since,
            until=wanted.until,
            rows=division.rows,
            bytes=division.bytes,
            chunks=division.chunks,
            reason=division.reason,
        )


def read_sweep(asked: Mapping[str, Any]) -> list[TableName]:
    """Return the tables that are to be swept, none where all are meant.

    Args:
        asked: a `sweep` message; `tables` in place of `table` names several, or both are left out.

    Raises:
        InvalidMessage: naming the field, the value and the remedy.
    """
    fields = dict(asked)
    if "tables" not in fields and "table" not in fields:
        return []
    return [one.table_name for one in _each(fields)]


def read_ingests(asked: Mapping[str, Any]) -> list[TableName]:
    """Return the tables that are to be ingested now.

    Args:
        asked: an `ingest` message; `tables` in place of `table` names several.

    Raises:
        InvalidMessage: naming the field, the value and the remedy.
    """
    return [one.table_name for one in _each(dict(asked))]


def _wanted(asked: Mapping[str, Any]) -> tuple[list[Backfill], bool]:
    fields = dict(asked)
    dry = fields.pop("dry_run", False)
    if not isinstance(dry, bool):
        raise InvalidMessage("read", "the request", f"dry_run {dry!r} must be true or false", "Leave it out to send")
    wanted = _each(fields)
    if not all(isinstance(one, Backfill) for one in wanted):
        raise InvalidMessage("read", "the request", "it is no backfill", "Give from and to, or all")
    return [one for one in wanted if isinstance(one, Backfill)], dry


def _each(fields: dict[str, Any]) -> list[Message]:
    """Return the messages of a request that may name several tables."""
    tables = fields.pop("tables", None)
    if tables is None:
        tables = [fields.get("table")]
    elif "table" in fields or not isinstance(tables, list) or not tables:
        reason = f"tables {tables!r} must be a list of names, and the only one beside no table"
        raise InvalidMessage("read", "the request", reason, 'Send for example "tables": ["public.orders"]')
    return list({one.table: one for one in (read({**fields, "table": table}) for table in tables)}.values())
