"""What runs work with: the database, the lake, the state, and what finishes and sends."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

import msgspec

from tidelog.configurations import Configurations
from tidelog.dispatch import Dispatch
from tidelog.glancing import Glances
from tidelog.ledger import Ledger
from tidelog.limits import Limits
from tidelog.parameters import Parameters
from tidelog.publishing import Publisher
from tidelog.queues import WorkQueue
from tidelog.segment import Segments
from tidelog.source import Source


class Parts(msgspec.Struct, frozen=True):
    """The parts that runs share.

    Attributes:
        source: the database, read as `configurations` says.
        configurations: what is configured.
        segments: the lake's data.
        ledger: the lake's events.
        parameters: the summaries of the states.
        backfill_queue: where chunks are waited for.
        limits: what an operator has set.
        glances: what is asked of tables that were read.
        now: the clock, with a zone.
    """

    source: Source
    configurations: Configurations
    segments: Segments
    ledger: Ledger
    parameters: Parameters
    backfill_queue: WorkQueue
    limits: Limits
    glances: Glances
    now: Callable[[], datetime]

    @property
    def publisher(self) -> Publisher:
        """Finishes what is committed."""
        return Publisher(self.source, self.segments, self.ledger, self.parameters, self.now)

    @property
    def dispatch(self) -> Dispatch:
        """Sends chunks."""
        return Dispatch(self.ledger, self.backfill_queue)
