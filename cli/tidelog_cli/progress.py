"""Plans under way: how far each is, as its ledger says."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime

from tidelog.ledger import Ledger
from tidelog.plans import OpenPlan, Planned
from tidelog.state import State
from tidelog.tables import TableName

_AT_ONCE = 16


@dataclass(frozen=True, slots=True)
class Progress:
    """A plan, and how far it is.

    Attributes:
        table: the table.
        plan: the plan under way.
        planned: what was planned.
        begun: when.
        state: the table's.
    """

    table: TableName
    plan: OpenPlan
    planned: Planned
    begun: datetime
    state: State

    @property
    def name(self) -> str:
        """By which it is cancelled."""
        return f"{self.table}/{self.plan.number}"

    @property
    def what(self) -> str:
        """What it reads, in words."""
        if self.planned.span:
            return f"{self.planned.span.since} to {self.planned.span.until}"
        return {
            "snapshot": "the first snapshot",
            "increment": "what is new",
            "backfill": "all rows",
            "sweep": "what timestamps have hidden",
        }[self.plan.kind]

    @property
    def share(self) -> float:
        """How much of it is done, from 0 to 1."""
        if self.plan.bytes:
            return min(1.0, self.plan.done_bytes / self.plan.bytes)
        return self.plan.done_chunks / self.plan.chunks

    def seconds_left(self, now: datetime) -> float | None:
        """Return how long it takes if it goes on as it did so far; None where nobody can say yet."""
        if not self.share:
            return None
        return (now - self.begun).total_seconds() * (1 - self.share) / self.share


def plans_under_way(ledger: Ledger, table: TableName | None = None) -> list[Progress]:
    """Return the plans of every table, or of one, by table and number."""
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        tables = [table] if table else sorted(ledger.tables())
        return [each for found in pool.map(lambda name: list(_of(ledger, name)), tables) for each in found]


def _of(ledger: Ledger, table: TableName) -> Iterator[Progress]:
    head = ledger.head(table)
    for plan in head.state.plans if head else ():
        event = ledger.read(table, plan.number)
        assert head and isinstance(event.what, Planned)  # noqa: S101, PT018 - for the type: it began there
        yield Progress(table, plan, event.what, datetime.fromisoformat(event.at), head.state)
