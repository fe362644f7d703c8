"""Whether what was read fits together: windows that go on where the last ones ended, chunks that are all of their plan.

Each function yields in words what does not fit. By induction over a ledger, where none has anything to say, each row
version that was there is of exactly one reading: none was left out, and none was read twice without an event that
announces it.
"""

from __future__ import annotations

from collections.abc import Iterator

from tidelog import timestamps
from tidelog.plans import WINDOWS, Chunk, ChunkRead, ChunksDropped, ChunkSplit, Dropped, Planned
from tidelog.readings import LeafReading, Reading, undelta
from tidelog.state import State

_FAR = 2**30
"""A relation of which the ids of its last reading lie so far back may be out of reach, and is read whole."""


def window_seams(before: State, reading: Reading) -> Iterator[str]:
    """Hold a window against the state that it goes on from."""
    oids = [leaf.oid for leaf in reading.leaves]
    if len(oids) != len(set(oids)):
        yield "it reads a relation twice"
    for leaf in reading.leaves:
        yield from _leaf_seams(before, reading, leaf)
    if reading.horizon < before.horizon:
        yield f"its horizon {reading.horizon} lies before the last one, {before.horizon}"
    ahead = set(undelta(reading.ahead))
    if any(xid < reading.horizon for xid in ahead):
        yield "ids that it has emitted ahead of its horizon lie below it"
    if forgotten := {xid for xid in undelta(before.ahead) if xid >= reading.horizon} - ahead:
        yield f"it forgets ids that were emitted ahead, such as {min(forgotten)}: their rows come twice"
    if before.horizon and before.database:
        was, now = before.database, reading.database
        if (was.system, was.oid, before.oid) != (now.system, now.oid, reading.oid):
            yield "it has read another database or table than the window before, and no timeline has begun"
    if set(before.times) <= set(reading.times):
        yield from _times_seams("watermark", before.timestamp, reading.timestamp)
        yield from _times_seams("bound in time", before.bound, reading.next_bound)


def _leaf_seams(before: State, reading: Reading, leaf: LeafReading) -> Iterator[str]:
    known = before.horizon > 0 and leaf.oid in before.leaves
    past = before.past.get(leaf.oid)
    start, ahead = 0, tuple[int, ...]()
    if known:
        start, ahead = before.horizon, before.ahead
    elif past and not (not leaf.start and reading.horizon - past.horizon > _FAR):
        start, ahead = past.horizon, past.ahead
    if leaf.start != start:
        gap = f"a gap of {leaf.start - start} transactions" if leaf.start > start else "rows of before come twice"
        where = f"transaction {start}" if start else "its begin"
        yield f"relation {leaf.oid} goes on from {where}, and was read from {leaf.start} on: {gap}"
    elif reading.ahead_of(leaf) != ahead:
        mine, its = set(undelta(ahead)), set(undelta(reading.ahead_of(leaf)))
        wrong = (
            f"leaves out {min(its - mine)}, which was not emitted" if its - mine else "repeats ids that were emitted"
        )
        yield f"of relation {leaf.oid} it {wrong}"
    if leaf.bounded and not (known and reading.columns and reading.bound and reading.bound == before.bound):
        yield f"relation {leaf.oid} was read past the bound {reading.bound}, where {before.bound or 'none'} counts"


def _times_seams(what: str, before: str | None, after: str | None) -> Iterator[str]:
    try:
        back = before is not None and (after is None or timestamps.order(after) < timestamps.order(before))
    except ValueError:
        yield f"the {what} is no timestamp"
    else:
        if back:
            yield f"the {what} goes back from {before} to {after}"


def plan_seams(before: State, plan: Planned) -> Iterator[str]:
    """Hold a plan against the state that it goes on from."""
    read = {leaf.oid: leaf for leaf in plan.reading.leaves}
    if lacking := [leaf.name for leaf in plan.leaves if leaf.oid not in read]:
        yield f"it has chunks of {lacking[0]}, of which it does not say what they read"
    if any(not 0 < leaf.chunks <= leaf.pages for leaf in plan.leaves):
        yield "it has chunks without a page"
    if plan.instead:
        yield from _instead_seams(before, plan, plan.instead)
    elif plan.kind in WINDOWS:
        yield from window_seams(before, plan.reading)
        if not plan.reading.below:
            yield "its chunks read above its horizon"
    elif plan.kind == "sweep":
        yield from _sweep_seams(before, plan)
    elif any(leaf.start or plan.reading.ahead_of(leaf) for leaf in plan.reading.leaves):
        yield "it leaves out old rows"


def _sweep_seams(before: State, plan: Planned) -> Iterator[str]:
    if plan.reading.horizon > before.horizon:
        yield f"it reads up to {plan.reading.horizon}, where the windows have come to {before.horizon}"
    for leaf in plan.reading.leaves:
        if leaf.start != min((each.first for each in plan.hidden if leaf.oid in each.leaves), default=None):
            yield f"of relation {leaf.oid} it does not begin where the first hidden rows are"


def _instead_seams(before: State, plan: Planned, instead: Dropped) -> Iterator[str]:
    was = before.plan(instead.plan)
    if was is None:
        yield f"it takes the place of chunks of plan {instead.plan}, which is not under way"
        return
    wanted = was.horizon if plan.kind == "sweep" else max(was.horizon, before.horizon)
    if plan.reading.horizon != wanted:
        yield f"it takes the place of chunks that are to be read up to {wanted}, and reads up to {plan.reading.horizon}"


def chunk_seams(before: State, planned: Planned | None, what: ChunkRead | ChunkSplit | ChunksDropped) -> Iterator[str]:
    """Hold what became of a chunk against its plan: what was read and what is left of it are all of it, once.

    Args:
        before: the state before it.
        planned: the plan, None where it is not known.
        what: what became of it.
    """
    plan = before.plan(what.plan)
    if plan is None:
        yield f"plan {what.plan} is not under way"
        return
    if isinstance(what, ChunksDropped):
        if any(not 1 <= first <= last <= plan.chunks for first, last in what.chunks):
            yield f"it drops chunks that plan {what.plan} does not have"
        return
    number = what.chunk.number if isinstance(what, ChunkRead) else what.chunk
    if not plan.is_pending(number):
        yield f"chunk {number} of plan {what.plan} is not pending: it was read before, or was never planned"
        return
    if planned is None:
        return
    try:
        whole = plan.piece(number) or planned.chunk(number)
    except IndexError:
        yield f"nothing says what chunk {number} of plan {what.plan} is"
        return
    pieces = [what.chunk, *([what.rest] if what.rest else [])] if isinstance(what, ChunkRead) else list(what.halves)
    new = [piece.number for piece in pieces if piece is not getattr(what, "chunk", None)]
    if new != list(range(plan.chunks + 1, plan.chunks + 1 + len(new))):
        yield f"the pieces of chunk {number} have wrong numbers"
    yield from _piece_seams(whole, pieces)


def _piece_seams(whole: Chunk, pieces: list[Chunk]) -> Iterator[str]:
    """Hold pieces against the chunk that they were cut of: one behind the other, from its begin to its end."""
    if any(piece.leaf != whole.leaf for piece in pieces):
        yield f"pieces of chunk {whole.number} are of another relation"
    ends = [(whole.first, whole.since), *((piece.end, piece.until) for piece in pieces)]
    begins = [*((piece.first, piece.since) for piece in pieces), (whole.end, whole.until)]
    for end, begin in zip(ends, begins, strict=True):
        if end != begin:
            (page, since), (other, until) = end, begin
            missing = f"{since} to {until}" if since else f"pages {page} to {other}"
            yield f"chunk {whole.number} was cut so that {missing} are in no piece, or in two"
