"""One chunk of a plan: read as far as the time goes, commit it once, pass on what is left."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack

import msgspec
from msgspec.structs import replace

from tidelog.continuity import behind, find_break
from tidelog.errors import DatabaseChanged, OutOfTime, UnknownTable, UnreadableData
from tidelog.events import Event, What
from tidelog.lake import Position, segment_key
from tidelog.opening import OpenTable
from tidelog.parts import Parts
from tidelog.planning import LOOKING, planned
from tidelog.plans import (
    DEEPEST,
    WINDOWS,
    Chunk,
    ChunkRead,
    ChunksDropped,
    ChunkSplit,
    Dropped,
    Numbers,
    OpenPlan,
    Planned,
    joined,
)
from tidelog.readings import Segment
from tidelog.retracing import chunk_parts, of_rewritten
from tidelog.runs import Outcome, Run
from tidelog.segment import Upload
from tidelog.state import State
from tidelog.tables import Leaf, TableName
from tidelog.windows import REACH, Snapshot

_PIECES = 16
"""In so many pieces a chunk is read, one after another: what was read so far is worth something when time is up."""


class _Task(msgspec.Struct, frozen=True):
    """A chunk that is to be read."""

    table: TableName
    plan: Planned
    open: OpenPlan
    chunk: Chunk
    state: State

    def is_pending(self, now: State) -> OpenPlan | None:
        """Return the plan as it is now, None where the chunk is done meanwhile.

        Raises:
            DatabaseChanged: another timeline has begun since the chunk was read.
        """
        plan = now.plan(self.open.number)
        if plan is None or not plan.is_pending(self.chunk.number):
            return None
        if now.timeline != self.state.timeline:
            raise _changed(self.table, "the table's timeline has changed since it was read")
        return plan

    def deeper(self, number: int, piece: Chunk) -> Chunk:
        """Return what is cut off the chunk, as a chunk of its own."""
        depth = self.chunk.depth + 1
        return replace(piece, number=number, depth=depth if depth <= DEEPEST else 0)


class _GoneError(Exception):
    """A chunk's rows are not where they were."""

    def __init__(self, follow: Callable[[], Run]) -> None:
        super().__init__()
        self.follow = follow
        """Does what is to be done about it."""


class Chunking:
    """Reads chunks one after another.

    Args:
        parts: what it works with.
    """

    def __init__(self, parts: Parts) -> None:
        self._source = parts.source
        self._segments = parts.segments
        self._ledger = parts.ledger
        self._publisher = parts.publisher
        self._dispatch = parts.dispatch
        self._limits = parts.limits
        self._now = parts.now

    def read(self, table: TableName, number: int, chunk: int, *, seconds: float) -> Run:
        """Read a chunk of a plan.

        Args:
            table: the table.
            number: the plan's.
            chunk: the chunk's.
            seconds: the time there is.

        Raises:
            TidelogError: why it could not be; nothing is visible of it, or all is.
        """
        deadline = time.monotonic() + seconds
        state, _ = self._publisher.finish_last(table, seconds=seconds)
        plan = state.plan(number)
        if plan is None or not plan.is_pending(chunk):
            if plan and plan.sent:  # Whoever has read it may have died before what it left was sent.
                self._dispatch.send(table, number, [piece.number for piece in plan.pieces if piece.depth])
            return Run(str(table), "covered", plan=number, chunk=chunk)
        planned = self._ledger.read(table, number).what
        if not isinstance(planned, Planned):
            raise UnreadableData("read", f"event {number} of {table}", "it is not a plan", "Was the ledger changed?")
        task = _Task(table, planned, plan, plan.piece(chunk) or planned.chunk(chunk), state)
        try:
            return self._read(task, deadline)
        except UnknownTable as error:
            if not self._source.is_on(planned.reading.database, plan.horizon):
                raise _changed(table, "it is not there, in another database or one that is behind") from error
            return self._drop_all(task, "the table was dropped")

    def _read(self, task: _Task, deadline: float) -> Run:
        with ExitStack() as uncommitted:
            try:
                last, segment, snapshot = self._prepare(task, deadline, uncommitted)
                # A row may have been left out for a newer version, which a crash of the server must not take back.
                self._source.wait_until_durable(snapshot)
            except OutOfTime:
                if len(task.chunk.pieces(2)) < 2:
                    raise
                return self._split(task)
            except _GoneError as gone:
                return gone.follow()
            event = self._commit(task, last, segment, uncommitted)
            if event is None:
                return _run(task, "covered")
        self._publisher.finish_last(task.table, seconds=deadline - time.monotonic())
        self._send_on(task, (event.rest,) if event.rest else ())
        return _run(task, "read", segment)

    def _prepare(self, task: _Task, deadline: float, uncommitted: ExitStack) -> tuple[Chunk, Segment | None, Snapshot]:
        """Read the chunk into an upload that nobody sees; return the last piece that was read, and the segment."""
        with self._source.open(task.table, seconds=deadline - time.monotonic(), after=task.state) as opened:
            self._check(opened, task)
            if task.chunk.leaf:
                self._check_leaf(opened, task)
            with self._segments.prepare(self._key(task)) as upload:
                last, rows = _copy(opened, task, upload)
                opened.confirm()
                document = opened.table.document()
                segment = upload.finish(document.fingerprint, rows) if rows else None
        if segment:
            uncommitted.callback(self._segments.abort, segment)
            self._segments.describe(task.table, document)
        return last, segment, opened.snapshot

    def _check(self, opened: OpenTable, task: _Task) -> None:
        """Do nothing where the plan means the same to the database that answers as to the one before.

        Raises:
            DatabaseChanged, ReplicaBehind: its horizon does not.
            _GoneError: a column that it is about is gone, or it is out of the reach of transaction ids.
        """
        if found := find_break(task.state, opened.snapshot, opened.table):
            raise _changed(task.table, found.reason)
        if opened.snapshot.horizon < task.open.horizon:
            reason = f"it is at transaction {opened.snapshot.horizon}, the plan at {task.open.horizon}"
            if opened.snapshot.standby:
                raise behind(task.table, reason)
            raise _changed(task.table, reason)
        columns = set(task.plan.span.columns if task.plan.span else ()) - set(opened.table.times)
        columns = columns.union(*(opened.table.gone(each.columns, each.numbers) for each in task.plan.hidden))
        if columns:
            reason = f"it has no timestamp column {' or '.join(sorted(columns))} any more"
            raise _GoneError(lambda: self._drop_all(task, reason))
        starts = (leaf.start or task.open.horizon for leaf in task.plan.reading.leaves)
        oldest = min(starts, default=task.open.horizon)
        if opened.snapshot.next - oldest > REACH:
            raise _GoneError(lambda: self._drop_all(task, "it was planned too many transactions ago"))

    def _check_leaf(self, opened: OpenTable, task: _Task) -> None:
        """Do nothing where the chunk's relation has its rows where they were.

        Raises:
            _GoneError: it has not, or is no longer part of the table.
        """
        was = task.plan.leaf(task.chunk.leaf)
        now = next((leaf for leaf in opened.table.leaves if leaf.oid == was.oid), None)
        if now and now.filenode == was.filenode:
            return

        def drop(state: State, plan: OpenPlan) -> ChunksDropped:
            forgotten = (was.oid,) if now is None and (plan.kind != "backfill" or state.hole) else ()
            reason = f"{was.name} {'was emptied' if now else 'is no longer part of the table'}"
            return ChunksDropped(plan.number, _numbers_of(task.plan, plan, was.oid), reason, forgotten)

        if now and now.pages:
            raise _GoneError(lambda: self._plan_again(task, opened, now))
        raise _GoneError(lambda: self._drop(task, drop))

    def _plan_again(self, task: _Task, opened: OpenTable, now: Leaf) -> Run:
        """Have a relation read from its begin: it was rewritten, so its rows are on other pages."""
        work = now.size / (LOOKING if task.open.kind == "sweep" else 1)
        leaf = planned(now, work, self._limits.of(opened.settings).chunk_bytes)
        again = replace(
            task.plan,
            reason=f"{leaf.name} was rewritten (VACUUM FULL, CLUSTER, pg_repack …): its rows are on other pages, "
            "and some come twice",
            leaves=(leaf,),
            bytes=leaf.bytes,
            request="",
            lost=(),
        )

        def decide(now: State, plan: OpenPlan) -> Planned:
            reading = of_rewritten(task.plan, leaf.oid, plan.horizon, now.horizon)
            return replace(again, reading=reading, instead=Dropped(plan.number, _numbers_of(task.plan, plan, leaf.oid)))

        state, event = self._append(task, decide)
        if event and (plan := state.plan(event.offset)):
            self._dispatch.send_plan(task.table, state, plan, finished=task.state.offset)
        return _run(task, "replanned")

    def _drop(self, task: _Task, make: Callable[[State, OpenPlan], ChunksDropped]) -> Run:
        self._append(task, make)
        return _run(task, "dropped")

    def _drop_all(self, task: _Task, reason: str) -> Run:
        """End the plan. What a window's leaves unread counts as never read; what a sweep's does is the next one's."""
        leaves = tuple(leaf.oid for leaf in task.plan.reading.leaves) if task.open.kind in WINDOWS else ()
        return self._drop(task, lambda _, p: ChunksDropped(p.number, p.left, reason, leaves, unread=True))

    def _split(self, task: _Task) -> Run:
        """Replace the chunk by its halves: not even its first piece could be read."""

        def split(_: State, plan: OpenPlan) -> ChunkSplit:
            first, second = task.chunk.pieces(2)
            halves = (task.deeper(plan.chunks + 1, first), task.deeper(plan.chunks + 2, second))
            return ChunkSplit(plan.number, task.chunk.number, halves)

        _, event = self._append(task, split)
        if event and isinstance(event.what, ChunkSplit):
            self._send_on(task, event.what.halves)
        return _run(task, "split")

    def _commit(self, task: _Task, last: Chunk, segment: Segment | None, uncommitted: ExitStack) -> ChunkRead | None:
        """Append the event of a chunk that was read up to the end of some piece, unless it is done already."""
        read = replace(task.chunk, end=last.end, until=last.until)
        left = replace(task.chunk, first=last.end, since=last.until)

        def decide(now: State) -> What | None:
            if not (plan := task.is_pending(now)):
                return None
            rest = task.deeper(plan.chunks + 1, left) if read != task.chunk else None
            uncommitted.pop_all()  # From here on an event may need the upload, whatever is raised.
            return ChunkRead(plan.number, read, task.plan.share(read), segment, rest)

        _, event = self._ledger.append_if(task.table, task.state, decide, finished=task.state.offset)
        if event is None and segment:
            self._segments.abort(segment)
        return event.what if event and isinstance(event.what, ChunkRead) else None

    def _append(self, task: _Task, make: Callable[[State, OpenPlan], What]) -> tuple[State, Event | None]:
        """Append what becomes of the chunk, unless it is done already."""

        def decide(now: State) -> What | None:
            return make(now, plan) if (plan := task.is_pending(now)) else None

        return self._ledger.append_if(task.table, task.state, decide, finished=task.state.offset)

    def _send_on(self, task: _Task, chunks: Iterable[Chunk]) -> None:
        """Send what was cut off, but for what the next tick sends."""
        self._dispatch.send(task.table, task.open.number, [chunk.number for chunk in chunks if chunk.depth])

    def _key(self, task: _Task) -> str:
        position = Position(
            timeline=task.state.timeline,
            horizon=task.open.horizon,
            increment=False,
            number=task.open.number,
            chunk=task.chunk.number,
        )
        return segment_key(task.table, self._now().strftime("%Y-%m-%d"), position)


def _numbers_of(planned: Planned, plan: OpenPlan, leaf: int) -> Numbers:
    """Return the numbers of the chunks of a leaf, those that were cut off others included."""
    pieces = ((piece.number, piece.number) for piece in plan.pieces if piece.leaf == leaf)
    return joined([planned.numbers_of(leaf), *pieces])


def _copy(opened: OpenTable, task: _Task, upload: Upload) -> tuple[Chunk, int]:
    """Read the pieces of a chunk while there is time for two of the slowest; return the last one read, and the rows."""
    slowest, last, rows = 0.0, None, 0
    for piece in task.chunk.pieces(_PIECES if task.chunk.leaf else 1):
        if last and opened.left < 2 * slowest:
            break
        started = time.monotonic()
        for part in chunk_parts(opened.table, task.plan, piece, task.open.horizon):
            rows += opened.copy(part.leaf, part.window, upload)
        slowest = max(slowest, time.monotonic() - started)
        last = piece
    assert last  # noqa: S101 - for the type: a chunk has a piece
    return last, rows


def _run(task: _Task, outcome: Outcome, segment: Segment | None = None) -> Run:
    return Run(
        table=str(task.table),
        outcome=outcome,
        rows=segment.rows if segment else 0,
        bytes=segment.bytes if segment else 0,
        sequential_id=task.state.sequential_id,
        timestamp=task.state.timestamp,
        key=segment.key if segment else None,
        strategy=task.plan.reason,
        plan=task.open.number,
        chunks=task.open.chunks,
        chunk=task.chunk.number,
    )


def _changed(table: TableName, reason: str) -> DatabaseChanged:
    return DatabaseChanged("read a chunk of", table, reason, "The table's next run begins a new timeline")
