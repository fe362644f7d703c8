"""Chunks on their way to the queue: the messages of a plan, sent until an event says that all are."""

from __future__ import annotations

from collections.abc import Iterable

from tidelog.ledger import Ledger
from tidelog.messages import chunk
from tidelog.plans import Enqueued, OpenPlan
from tidelog.queues import WorkQueue
from tidelog.state import State
from tidelog.tables import TableName


class Dispatch:
    """Sends the messages of chunks.

    Args:
        ledger: the events.
        queue: where chunks are waited for.
    """

    def __init__(self, ledger: Ledger, queue: WorkQueue) -> None:
        self._ledger = ledger
        self._queue = queue

    def send_unsent(self, table: TableName, state: State, *, finished: int) -> State:
        """Send the chunks of every plan of which not all are known to be sent; return the state after that.

        One that is sent twice, since whoever sent it has died before the event, is read once.
        """
        for plan in state.plans:
            if not plan.sent:
                state = self.send_plan(table, state, plan, finished=finished)
        return state

    def send_plan(self, table: TableName, state: State, plan: OpenPlan, *, finished: int) -> State:
        """Send what is pending of a plan, and note that it is sent; return the state after that."""
        self.send(table, plan.number, plan.pending)

        def enqueued(now: State) -> Enqueued | None:
            same = now.plan(plan.number)
            if same is None or same.sent or same.chunks > plan.chunks:  # There are pieces since: the next run's.
                return None
            return Enqueued(plan.number)

        return self._ledger.append_if(table, state, enqueued, finished=finished)[0]

    def send(self, table: TableName, plan: int, numbers: Iterable[int], *, again: str = "") -> None:
        """Send some chunks of a plan.

        Args:
            table: the table.
            plan: the plan.
            numbers: the chunks.
            again: something new where chunks are sent that SQS may hold for those it had minutes ago.

        Raises:
            StoreUnreachable: as it says; some may be on the queue.
        """
        self._queue.send([chunk(table, plan, number) for number in numbers], salt=again)
