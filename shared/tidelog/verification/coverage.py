"""Which row versions of a relation a lake has at some state, and which of these bounds in time have hidden: as SQL."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import msgspec
from msgspec.structs import replace

from tidelog.hidden import Hidden, Unseen
from tidelog.plans import WINDOWS, OpenPlan, Planned, joined
from tidelog.readings import undelta
from tidelog.state import Past, State
from tidelog.tables import Leaf, Table
from tidelog.windows import REACH, Snapshot, Window


class Coverage(msgspec.Struct, frozen=True):
    """What a table's state says of the row versions that a snapshot shows.

    Attributes:
        table: the table.
        state: its state.
        plans: the plans that are under way, by number.
        hidden: what is hidden at that state.
        snapshot: the snapshot, whose ids can be compared with the state's.
    """

    table: Table
    state: State
    plans: Mapping[int, Planned]
    hidden: tuple[Hidden, ...]
    snapshot: Snapshot

    def covered(self, leaf: Leaf, row: str) -> str:
        """Return as SQL that a row version was read, or left out for a bound in time.

        It is not of the next window, nor of a chunk that is not read yet. A relation that was never read has none.
        """
        state = self.state
        read = Past(state.horizon, state.ahead) if leaf.oid in state.leaves else state.past.get(leaf.oid, Past(0))
        if not read.horizon or self.snapshot.next - read.horizon > REACH:
            return "false"
        later = [Window(read.horizon, undelta(read.ahead)).condition(self.snapshot, row)]
        for plan in state.plans:
            if plan.kind in WINDOWS and plan.number in self.plans:
                later += self._chunks(plan, self.plans[plan.number], leaf, row)
        return " AND ".join(f"NOT ({part})" for part in later)

    def _chunks(self, plan: OpenPlan, planned: Planned, leaf: Leaf, row: str) -> Iterator[str]:
        """Yield the row versions of a plan's chunks that are not read yet."""
        was = next((each for each in planned.leaves if each.oid == leaf.oid), None)
        read = next((each for each in planned.reading.leaves if each.oid == leaf.oid), None)
        if was is None or read is None:
            return
        pieces = {piece.number: piece for piece in plan.pieces}
        chunks = [pieces.get(number) or planned.chunk(number) for number in plan.pending]
        pages = joined((chunk.first, chunk.end - 1) for chunk in chunks if chunk.leaf == leaf.oid)
        if pages and was.filenode != leaf.filenode:  # It was rewritten: they may be anywhere.
            pages = ((0, max(leaf.pages, was.pages)),)
        for first, last in pages:
            window = Window(
                read.start, undelta(planned.reading.ahead_of(read)), end=plan.horizon, pages=(first, last + 1)
            )
            yield window.condition(self.snapshot, row)

    def unseen(self, leaf: Leaf, row: str) -> str:
        """Return as SQL that a row version was hidden, and no sweep has read it."""
        parts = [
            replace(each, columns=(), numbers=()) if self.table.gone(each.columns, each.numbers) else each
            for each in self.hidden
            if leaf.oid in each.leaves and self.snapshot.next - each.first <= REACH
        ]
        return Unseen(tuple(parts), self.table.times).condition(row, self.snapshot.next) if parts else "false"


def page_ranges(leaf: Leaf, pages: int) -> Iterable[tuple[int, int]]:
    """Yield the pages of a relation in pieces of so many; the last one has all that is behind it."""
    first = 0
    while first + pages < leaf.pages:
        yield first, first + pages
        first += pages
    yield first, 2**32 - 1
