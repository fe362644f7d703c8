"""Backfills: which rows of a table are read again, and in which pieces."""

from __future__ import annotations

from math import ceil

import msgspec

from tidelog import ranges
from tidelog.errors import UnknownColumn
from tidelog.messages import Backfill
from tidelog.planning import LOOKING, Findable, planned
from tidelog.plans import PlannedLeaf, Span
from tidelog.tables import Table
from tidelog.windows import Times, Window

_TYPES = "date, timestamp or timestamptz"


class Division(msgspec.Struct, frozen=True):
    """A backfill, cut into chunks.

    Attributes:
        rows: how many there are, as PostgreSQL's planner estimates.
        bytes: on disk, that are read or looked through.
        reason: how it is read, and why so.
        leaves: the relations whose pages are read; empty where pieces are ranges in time.
        cuts: those ranges.
        span: the range in time; None where all rows are read.
    """

    rows: int
    bytes: int
    reason: str
    leaves: tuple[PlannedLeaf, ...] = ()
    cuts: tuple[str, ...] = ()
    span: Span | None = None

    @property
    def chunks(self) -> int:
        """How many chunks there are."""
        return sum(leaf.chunks for leaf in self.leaves) or max(0, len(self.cuts) - 1)


def divide(opened: Findable, wanted: Backfill, chunk_bytes: int) -> Division:
    """Cut a backfill into chunks.

    Ranges in time are cut into ranges where indexes lead to them, or where the table is small; else the pages of the
    table are, each of which is looked through for the whole range.

    Raises:
        UnknownColumn: the table has no such timestamp column.
    """
    table = opened.table
    if wanted.all:
        leaves = tuple(planned(leaf, leaf.size, chunk_bytes) for leaf in table.leaves)
        rows = sum(leaf.rows if leaf.rows >= 0 else int(leaf.size / leaf.width) for leaf in table.leaves)
        return Division(rows, table.size, "all rows", tuple(leaf for leaf in leaves if leaf.chunks))
    columns = _columns(table, wanted.column)
    span = Span(columns, wanted.since, wanted.until)
    dated = tuple((column, table.times[column] == "date") for column in columns)
    window = Window(times=Times(dated, span.since, span.since, span.until))
    estimated = {leaf.oid: opened.estimate(leaf, window) for leaf in table.leaves}
    taken = {leaf.oid: min(leaf.size, estimated[leaf.oid] * leaf.width) for leaf in table.leaves}
    asked = f"rows with {' or '.join(columns)} in [{span.since}, {span.until})"
    rows, size = sum(estimated.values()), int(sum(taken.values()))
    if table.size <= chunk_bytes or all(column in leaf.indexed for column in columns for leaf in table.leaves):
        cuts = (
            ranges.steps(span.since, span.until, wanted.step)
            if wanted.step
            else ranges.even(span.since, span.until, ceil(size / chunk_bytes))
        )
        return Division(rows, size, asked, cuts=cuts, span=span)
    leaves = tuple(planned(leaf, max(taken[leaf.oid], leaf.bytes / LOOKING), chunk_bytes) for leaf in table.leaves)
    instead = f" in place of pieces of {wanted.step}" if wanted.step else ""
    reason = f"{asked}; no index leads to them all, so every page is looked through{instead}"
    return Division(rows, table.bytes, reason, tuple(leaf for leaf in leaves if leaf.chunks), span=span)


def _columns(table: Table, column: str) -> tuple[str, ...]:
    name, known = table.table_name, ", ".join(table.times) or "none"
    if column == "both":
        if not table.timestamp_columns:
            reason = (
                f"none of its columns says by its name when a row was created or updated; of type {_TYPES}: {known}"
            )
            raise UnknownColumn("backfill", name, reason, "Name one of those as the column, or ask for all rows")
        return table.timestamp_columns
    if column in table.times:
        return (column,)
    types = {each.name: each.type_name for each in table.columns}
    reason = f"column {column!r} is of type {types[column]}" if column in types else f"it has no column {column!r}"
    raise UnknownColumn("backfill", name, f"{reason}; of type {_TYPES}: {known}", "Name one of those, or both")
