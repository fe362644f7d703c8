"""Events in words."""

from __future__ import annotations

from typing import assert_never

from tidelog.events import (
    Advanced,
    Ingested,
    PartitionsChanged,
    Remade,
    SchemaChanged,
    Snapshotted,
    Supplied,
    TimelineStarted,
    What,
)
from tidelog.plans import ChunkRead, ChunksDropped, ChunkSplit, Enqueued, PlanEvent, Planned
from tidelog_cli.output import counted

_PLANNED = {
    "snapshot": "the first snapshot",
    "increment": "what is new",
    "backfill": "a backfill",
    "sweep": "a sweep",
}


def in_words(what: What) -> str:
    """Return what happened, for a person."""
    match what:
        case Snapshotted():
            return "all rows were read"
        case Ingested():
            return "new rows were read"
        case Supplied():
            return "rows came that tidelog did not read itself"
        case Advanced():
            return "nothing was new; the horizon was moved up"
        case SchemaChanged():
            return _altered(what)
        case PartitionsChanged():
            return f"partitions: {what.difference}"
        case TimelineStarted():
            return _begun(what)
        case Remade():
            again = "; what it may lack is read whole" if what.lost else ""
            return f"the segment of event {what.of} was lost before it was published, and made again{again}"
        case Planned() | Enqueued() | ChunkRead() | ChunkSplit() | ChunksDropped():
            return _of_plan(what)
        case _:
            assert_never(what)


def _altered(what: SchemaChanged) -> str:
    words = [f"altered: {what.difference}"]
    if what.outdated:
        words.append(f"lines written before are outdated: {what.outdated}")
    if what.again:
        words.append("all rows are read again")
    return "; ".join([*words, *_remedy(what)])


def _begun(what: TimelineStarted) -> str:
    goes_on = "it is read whole" if what.resume is None else "it goes on from an earlier state"
    words = [f"timeline {what.timeline} begins, {goes_on}: {what.reason}"]
    if what.outdated:
        words.append(what.outdated)
    return "; ".join([*words, *_remedy(what)])


def _remedy(what: SchemaChanged | TimelineStarted) -> list[str]:
    return [f"to have them read again: {what.remedy}"] if what.remedy else []


def _of_plan(what: PlanEvent) -> str:
    match what:
        case Planned():
            reason = what.reason.removeprefix(f"{_PLANNED[what.kind]}: ").removeprefix("chunks: ")
            if not what.chunks:
                more = reason.partition(". ")[2]
                return f"{_PLANNED[what.kind]} had nothing to read" + (f". {more}" if more else "")
            instead = f" in place of plan {what.instead.plan}" if what.instead else ""
            return f"{_PLANNED[what.kind]} was planned in {counted(what.chunks, 'chunk')}{instead}: {reason}"
        case Enqueued():
            return f"plan {what.plan}: all messages are sent"
        case ChunkRead():
            rest = f"; chunk {what.rest.number} is left of it" if what.rest else ""
            return f"plan {what.plan}: chunk {what.chunk.number} was read{rest}"
        case ChunkSplit():
            first, second = what.halves
            return (
                f"plan {what.plan}: chunk {what.chunk} was too large, its halves are {first.number} and {second.number}"
            )
        case ChunksDropped():
            count = sum(last - first + 1 for first, last in what.chunks)
            return f"plan {what.plan}: {counted(count, 'chunk')} dropped: {what.reason}"
        case _:
            assert_never(what)
