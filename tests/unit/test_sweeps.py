"""What is hidden, against a model: transactions that commit in any order, windows with and without bounds, sweeps."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from itertools import accumulate

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from tidelog.events import Event, Ingested, Snapshotted, TimelineStarted, What
from tidelog.folding import event_after
from tidelog.hidden import Hidden
from tidelog.plans import Dropped, Planned
from tidelog.readings import LeafReading, Reading, Segment, deltas, undelta
from tidelog.retracing import of_rewritten
from tidelog.state import State
from tidelog.sweeps import unswept
from tidelog.windows import Database

DATABASE = Database("1", 1, "d", 1)
LEAVES = (1, 2)
SEGMENT = Segment("k", "u", (), 1, 1, 1, "s", "d")
COLUMNS = ("updated_at",)


@dataclass(frozen=True)
class Row:
    """A row version: its transaction, its relation, its timestamp."""

    xid: int
    leaf: int
    at: int | None
    number: int


@dataclass
class World:
    """A database of which nothing but transactions is left, and the ledger of one table in it."""

    next: int = 10
    running: set[int] = field(default_factory=set)
    committed: set[int] = field(default_factory=set)
    rows: list[Row] = field(default_factory=list)
    leaves: tuple[int, ...] = LEAVES
    events: list[Event] = field(default_factory=list)
    written: list[Row] = field(default_factory=list)

    @property
    def state(self) -> State:
        """The table's."""
        return self.events[-1].state if self.events else State()

    @property
    def horizon(self) -> int:
        """Of a snapshot taken now."""
        return min(self.running, default=self.next)

    def begin(self, rows: list[tuple[int, int | None]]) -> None:
        """Let a transaction write rows, of a relation and a time each."""
        self.running.add(self.next)
        self.rows += [Row(self.next, leaf, at, len(self.rows) + place) for place, (leaf, at) in enumerate(rows)]
        self.next += 1

    def end(self, xid: int, *, commit: bool) -> None:
        """End one."""
        self.running.discard(xid)
        if commit:
            self.committed.add(xid)

    def write(self, rows: list[tuple[int, int | None]]) -> None:
        """Let a transaction write rows and commit."""
        self.begin(rows)
        self.end(self.next - 1, commit=True)

    def end_all(self, *, commit: bool) -> None:
        """End all that are running."""
        for xid in sorted(self.running):
            self.end(xid, commit=commit)

    def append(self, what: What) -> None:
        """Add an event."""
        self.events.append(event_after(self.state, what, table="t", at="", run="", finished=0))

    def window(self, bound: int | None) -> None:
        """Run the table, with a bound or without; a run that finds no row leaves no event."""
        state, ahead = self.state, set(undelta(self.state.ahead))
        known = {oid: (state.horizon, ahead) for oid in state.leaves if state.horizon}
        past = {oid: (past.horizon, set(undelta(past.ahead))) for oid, past in state.past.items() if past.horizon}
        found, leaves = list[Row](), list[LeafReading]()
        for oid in self.leaves:
            start, before = known.get(oid) or past.get(oid) or (0, set())
            limit = bound if oid in known else None
            leaves.append(LeafReading(oid, start, deltas(before), bounded=limit is not None))
            found += [
                row
                for row in self.rows
                if row.leaf == oid and row.xid in self.committed and row.xid >= start and row.xid not in before
                if limit is None or (row.at is not None and row.at >= limit)
            ]
        if not found:
            return
        self.written += found
        above = {xid for xid in ahead | {row.xid for row in found} if xid >= self.horizon}
        reading = Reading(
            leaves=tuple(leaves),
            columns=COLUMNS if bound is not None else (),
            numbers=(2,) if bound is not None else (),
            bound=None if bound is None else f"{bound:03}",
            below=False,
            strategy="",
            database=DATABASE,
            oid=1,
            horizon=self.horizon,
            ahead=deltas(above),
            read_at="",
            timestamp=None,
            next_bound=None,
        )
        what = Ingested(SEGMENT, reading, state.sequential_id + 1) if state.horizon else Snapshotted(SEGMENT, reading)
        self.append(what)

    def sweep(self) -> None:
        """Read what is hidden, of the relations that are there."""
        state = self.state
        if state.is_swept:
            return
        found = unswept(state, self.events[state.unswept - 1 :])
        here = [each for each in self.rows if each.leaf in self.leaves and each.xid in self.committed]
        self.written += [row for row in here if any(is_in(row, hidden) for hidden in found.hidden)]
        reading = self.events[-1].reading or next(each.reading for each in reversed(self.events) if each.reading)
        lost = {oid for hidden in found.hidden for oid in hidden.leaves} - set(self.leaves)
        self.append(
            Planned(
                kind="sweep",
                reason="",
                reading=replace(reading, horizon=state.horizon, ahead=()),
                schema="",
                then=found.then or state.offset + 1,
                lost=tuple(sorted(lost)),
            )
        )
        assert self.state.swept is not None
        assert self.state.swept.horizon == state.horizon

    def copy(self) -> tuple[int, list[Row]]:
        """Let a transaction copy all rows that are there; return its id and the rows."""
        xid, self.next = self.next, self.next + 1
        rows = [row for row in self.rows if row.xid in self.committed]
        self.committed.add(xid)
        return xid, rows

    def rewrite(self, copied: tuple[int, list[Row]] | None) -> None:
        """Exchange the one relation's file for one of copies, as pg_repack does; a plan under way is made anew.

        Args:
            copied: the transaction that has copied most, and what; what came later is copied by another one. None where
                rows keep their transactions, as under VACUUM FULL.
        """
        assert not self.running
        if copied:
            xid, early = copied
            late, self.next = self.next, self.next + 1
            self.committed.add(late)
            self.rows = [
                dataclasses.replace(row, xid=xid if row in early else late) if row.xid in self.committed else row
                for row in self.rows
            ]
        reading = next(event.reading for event in reversed(self.events) if event.reading)
        plan = Planned(kind="increment", reason="", reading=reading, schema="")
        again = of_rewritten(plan, 1, plan.reading.horizon, self.state.horizon)
        self.append(replace(plan, reading=again, instead=Dropped(1, ())))
        self.written += [row for row in self.rows if row.xid in self.committed and row.xid < again.horizon]

    def complete(self) -> bool:
        """Say whether all was written that is there below the horizon of the last sweep."""
        assert self.state.swept is not None
        below = [each for each in self.rows if each.xid in self.committed and each.xid < self.state.swept.horizon]
        return {row for row in below if row.leaf in self.state.leaves} <= set(self.written)


def is_in(row: Row, hidden: Hidden) -> bool:
    """Say whether a row is among what is hidden, as its SQL does."""
    assert hidden.columns == COLUMNS
    starts = list(accumulate(hidden.ranges))
    places = [
        place for low, high, place in zip(starts, starts[1:], hidden.places, strict=False) if low <= row.xid < high
    ]
    bound = hidden.bounds[places[0] - 1] if places and places[0] else None
    return row.leaf in hidden.leaves and bound is not None and (row.at is None or f"{row.at:03}" < bound)


ROWS = st.lists(st.tuples(st.sampled_from(LEAVES), st.none() | st.integers(0, 99)), max_size=4)


@settings(max_examples=300)
@given(st.data())
def test_windows_and_sweeps_write_each_row_once(data: st.DataObject) -> None:
    """Whatever commits late, whichever windows have a bound and whichever relations come and go."""
    world, bound = World(), 0
    world.write([(1, 50), (2, None)])
    world.window(None)
    for _ in range(data.draw(st.integers(1, 40))):
        match data.draw(
            st.sampled_from(["begin", "begin", "commit", "commit", "roll back", "window", "sweep", "leaf"])
        ):
            case "begin":
                world.begin(data.draw(ROWS))
            case "commit" | "roll back" as how if world.running:
                world.end(data.draw(st.sampled_from(sorted(world.running))), commit=how == "commit")
            case "window":
                bound += data.draw(st.integers(0, 20))
                world.window(data.draw(st.sampled_from([bound, bound, None])))
            case "sweep":
                world.sweep()
                assert not world.state.swept or world.complete()
            case "leaf":
                world.leaves = data.draw(st.sampled_from([LEAVES, LEAVES, (1,), (2,)]))
    once = [row for row in world.written if not was_lost(world, row)]
    assert len(once) == len(set(once))
    world.end_all(commit=True)
    world.leaves = LEAVES
    world.write([(1, 99), (2, 99)])
    world.window(99)
    world.sweep()
    committed = {row for row in world.rows if row.xid in world.committed}
    assert set(world.written) == committed


@settings(max_examples=500)
@given(st.data())
def test_what_is_planned_anew_is_not_swept_once_more(data: st.DataObject) -> None:
    """A relation that was rewritten is read up to the state's horizon, also what bounds had hidden by then.

    A row comes as often as its relation was read anew since it came first, and once more, at most; and each comes.
    """
    world, copied, rewrites = World(leaves=(1,)), None, 0
    world.write([(1, 50)])
    world.window(None)
    came: dict[int, list[int]] = {0: [0]}
    for bound in data.draw(st.lists(st.integers(0, 99), min_size=20, max_size=40).map(sorted)):
        done = len(world.written)
        match data.draw(st.sampled_from(["write", "begin", "window", "window", "sweep", "copy", "rewrite"])):
            case "write":
                world.write([(1, at) for _, at in data.draw(ROWS)])
            case "begin":
                world.begin([(1, at) for _, at in data.draw(ROWS)])
            case "window":
                # One without a bound would pass the ids of copies, of what is hidden too: that is told of, not found.
                world.window(None if not copied and data.draw(st.booleans()) else bound)
            case "sweep":
                world.sweep()
            case "copy":
                copied = world.copy()
            case _:  # Nobody else may hold the relation.
                world.end_all(commit=data.draw(st.booleans()))
                world.rewrite(copied)
                rewrites, copied = rewrites + 1, None
        for row in world.written[done:]:
            came.setdefault(row.number, []).append(rewrites)
    assert all(len(when) <= 1 + rewrites - when[0] for when in came.values()), came
    world.end_all(commit=True)
    world.write([(1, 99)])
    world.window(99)
    world.sweep()
    assert {row.number for row in world.written} == {row.number for row in world.rows if row.xid in world.committed}


def was_lost(world: World, row: Row) -> bool:
    """Say whether an event has announced that a row comes twice: its relation had left with hidden rows."""
    return any(isinstance(event.what, Planned) and row.leaf in event.what.lost for event in world.events)


@given(st.data())
def test_what_a_rewound_timeline_has_hidden_is_swept_too(data: st.DataObject) -> None:
    """It goes on from an earlier state: what came between is void. Nothing is lost."""
    world, bound = World(leaves=(1,)), 0
    world.write([(1, 50)])
    world.window(None)
    for _ in range(data.draw(st.integers(1, 30))):
        match data.draw(st.sampled_from(["begin", "commit", "window", "window", "sweep", "rewind"])):
            case "begin":
                world.begin([(1, at) for _, at in data.draw(ROWS)])
            case "commit" if world.running:
                world.end(data.draw(st.sampled_from(sorted(world.running))), commit=True)
            case "window":
                bound += data.draw(st.integers(0, 20))
                world.window(data.draw(st.sampled_from([bound, None])))
            case "sweep":
                world.sweep()
                assert not world.state.swept or world.complete()
            case "rewind":
                state = data.draw(st.sampled_from([event.state for event in world.events]))
                if state.timeline == world.state.timeline:
                    world.append(TimelineStarted(state.timeline + 1, "", DATABASE, state))
                    bound = data.draw(st.integers(0, bound))
    world.end_all(commit=True)
    world.write([(1, 99)])
    world.window(99)
    world.sweep()
    assert set(world.written) == {row for row in world.rows if row.xid in world.committed}
