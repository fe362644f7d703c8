"""Whether transaction ids of now can be compared with those of the last run, and where to go on where they can't."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from tidelog.errors import ReplicaBehind
from tidelog.state import State
from tidelog.tables import Table
from tidelog.windows import REACH, Database, Snapshot


@dataclass(frozen=True, slots=True)
class Break:
    """Ids before and after can't be compared.

    Attributes:
        reason: why, in words.
        rewind: whether an earlier window is still good, if it is old enough; else the table is read whole.
    """

    reason: str
    rewind: bool = False


def find_break(state: State, snapshot: Snapshot, table: Table) -> Break | None:
    """Compare a table's state with the database that answered now; None where the next window follows on the last.

    Raises:
        ReplicaBehind: a standby has not replayed yet what was read from another server.
    """
    before, now = state.database, snapshot.database
    if before is None or not state.horizon:
        return None
    if before.system != now.system:
        return Break(f"another cluster answered: system identifier {now.system} after {before.system}")
    if before.oid != now.oid:
        return Break(f"another database answered: {now.name} (oid {now.oid}) after {before.name} (oid {before.oid})")
    if state.oid != table.oid:
        return Break(f"the table was created anew: oid {table.oid} after {state.oid}")
    if now.wal_timeline is not None and before.wal_timeline != now.wal_timeline:
        was = "a standby" if before.wal_timeline is None else f"WAL timeline {before.wal_timeline}"
        return Break(f"the database failed over: WAL timeline {now.wal_timeline} after {was}", rewind=True)
    if snapshot.horizon < state.horizon:
        if snapshot.standby:
            reason = f"the standby is at transaction {snapshot.horizon}, the last run at {state.horizon}"
            raise ReplicaBehind(
                "read", table.table_name, reason, "It is tried again; read from one server if this stays"
            )
        return Break(f"the database went back: horizon {snapshot.horizon} after {state.horizon}")
    if snapshot.next - state.horizon > REACH:
        return Break(f"the table was not read for {snapshot.next - state.horizon} transactions")
    return None


def current_database(state: State, snapshot: Snapshot) -> Database:
    """Return which database answered; a standby's WAL timeline is taken to be the one last heard of."""
    now = snapshot.database
    if now.wal_timeline is None and state.database is not None:
        return msgspec.structs.replace(now, wal_timeline=state.database.wal_timeline)
    return now
