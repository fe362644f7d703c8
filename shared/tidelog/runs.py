"""What came of a message."""

from __future__ import annotations

from typing import Literal

import msgspec

Outcome = Literal[
    "snapshotted", "ingested", "unchanged", "covered", "planned", "waiting", "read", "split", "dropped", "replanned"
]


class Run(msgspec.Struct, frozen=True):
    """What a run did.

    Attributes:
        table: the table.
        outcome: "snapshotted" (the first rows), "ingested" (an increment), "unchanged" (no new row), "covered"
            (another worker was faster), "planned" (its chunks are on the queue) or "waiting" (it is too much for one
            run, and an earlier plan for it is under way). Of a chunk: "read", "split" (too large for the time there
            was: its halves are on the queue), "dropped" (what it is of is gone) or "replanned" (the relation was
            rewritten, and is read by another plan).
        rows: lines written.
        bytes: their size in the lake, compressed.
        sequential_id: of the table's last increment.
        timestamp: the watermark.
        key: of the segment, None where there is none.
        strategy: how the rows were found, and why so.
        plan: the plan that was made, or that the chunk is of; 0 where there is none.
        chunks: how many chunks the plan has.
        chunk: the chunk that the message was about; 0 where it was about none.
    """

    table: str
    outcome: Outcome
    rows: int = 0
    bytes: int = 0
    sequential_id: int = 0
    timestamp: str | None = None
    key: str | None = None
    strategy: str = ""
    plan: int = 0
    chunks: int = 0
    chunk: int = 0
