"""The state of a table: what its events add up to, and all that the next run has to know."""

from __future__ import annotations

from typing import Literal

import msgspec

from tidelog.plans import WINDOWS, OpenPlan
from tidelog.readings import Moment
from tidelog.windows import Database

Lack = Literal["cancelled", "under way", "hidden", "above"]
"""Chunks of a window were dropped; they are being read; bounds in time may have hidden rows that no sweep has read;
rows above the horizon are the next window's."""


class Past(msgspec.Struct, frozen=True):
    """Up to where a relation was read that goes on by itself: the table has it no more, or it is new to the table."""

    horizon: int
    ahead: tuple[int, ...] = ()
    """Delta-coded (`deltas`)."""
    here: bool = False
    """It is new to the table."""


class Swept(msgspec.Struct, frozen=True):
    """Up to where a table is complete, whatever bounds in time have hidden."""

    horizon: int
    """Every row version below it was written, or has a newer one."""
    at: str | None
    """A moment before which no transaction at or above it had written anything, by the server's clock."""


class State(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the events of a table add up to."""

    offset: int = 0
    """Of the last event; 0 before the first."""
    timeline: int = 1
    sequential_id: int = 0
    """Of the last increment; 0 before the first."""
    horizon: int = 0
    """Where the next window starts; 0 where nothing was read on this timeline."""
    ahead: tuple[int, ...] = ()
    """Ids at or above the horizon that are emitted, delta-coded (`deltas`)."""
    timestamp: str | None = None
    """The watermark: the latest timestamp ingested."""
    bound: str | None = None
    """Lower bound in time of the next window."""
    began: str | None = None
    """A moment before which no transaction id at or above the horizon was given out."""
    moment: Moment | None = None
    """A later one, for which the horizon has not passed yet what was running then."""
    times: tuple[str, ...] = ()
    """The timestamp columns that the watermark and the bound tell of."""
    read_at: str | None = None
    """A moment up to which all that was committed is read, but for what is lacking; by the server's clock."""
    below: bool = False
    """Whether the last reading that found rows left those above its horizon to the next."""
    database: Database | None = None
    oid: int = 0
    leaves: tuple[int, ...] = ()
    """Relations read up to the horizon."""
    past: dict[int, Past] = {}
    """Relations that were read and are no longer part of the table."""
    schema: str | None = None
    """Fingerprint of the table's schema document."""
    others: tuple[str, ...] = ()
    """Of other documents that chunks have been read by since."""
    files: str = ""
    """Of the files of its relations when it was read last; empty where it was not."""
    partitions: str | None = None
    """Fingerprint of the document that names its partitions; None where it has none, or nothing was read yet."""
    plans: tuple[OpenPlan, ...] = ()
    """Large reads under way."""
    swept: Swept | None = None
    """What the last sweep has reached; None where there was none."""
    unswept: int = 0
    """Offset of the first event that tells of what was hidden since; 0 where nothing can be."""
    bounded: int = 0
    """Offset of the last event whose window was bounded in time."""
    wal_position: str | None = None
    """All that was read on this timeline is before it in the write-ahead log."""
    standby: bool = False
    """A standby was read last."""
    rewritten: int = 0
    """Offset of the last event that planned a rewritten relation anew: windows of before may have read its old file."""
    hole: int = 0
    """Offset of the event that cancelled the reading of a window, since when rows are missing; 0 where none are."""
    strategy: str = ""
    """How the last window was found, and why so."""
    rows: int = 0
    """Lines written to the lake by all events so far."""
    bytes: int = 0
    """What they take there, compressed."""
    digest: str = ""
    """Of the event that it is the state after, where that was read or written; it is not stored with the state."""

    @property
    def is_swept(self) -> bool:
        """Whether nothing can be hidden that was there when the last window was read."""
        return not self.unswept or (self.swept is not None and self.swept.horizon == self.horizon)

    @property
    def lacks(self) -> Lack | None:
        """Why the table may not be complete up to its last run; None where it is."""
        if self.hole:
            return "cancelled"
        if any(plan.kind in WINDOWS for plan in self.plans):
            return "under way"
        if self.unswept:
            return "hidden"
        return "above" if self.below else None

    @property
    def complete_at(self) -> str | None:
        """Up to when the table is complete, by the server's clock; None where that can't be said."""
        match self.lacks:
            case None | "above":
                return self.read_at
            case "hidden" if self.swept:
                return self.swept.at
        return None

    def plan(self, number: int) -> OpenPlan | None:
        """Return a plan that is under way, None where it is over or never was."""
        return next((plan for plan in self.plans if plan.number == number), None)
