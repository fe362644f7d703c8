"""Whether transaction ids of now can be compared with those of the last run, and where to go on where they can't."""

from __future__ import annotations

import msgspec

from tidelog.errors import ReplicaBehind
from tidelog.state import State
from tidelog.tables import Table, TableName
from tidelog.windows import REACH, Database, Snapshot, log_offset


class Break(msgspec.Struct, frozen=True):
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
        ReplicaBehind: as of `check_caught_up`.
    """
    check_caught_up(state, snapshot, table.table_name)
    before, now = state.database, snapshot.database
    if before is None or not state.horizon:
        return None
    if before.system != now.system:
        return Break(f"another cluster answered: system identifier {now.system} after {before.system}")
    if before.oid != now.oid:
        return Break(f"another database answered: {now.name} (oid {now.oid}) after {before.name} (oid {before.oid})")
    if state.oid != table.oid:
        return Break(f"the table was created anew: oid {table.oid} after {state.oid}")
    if _failed_over(before, snapshot):
        was = "a standby" if before.wal_timeline is None else f"WAL timeline {before.wal_timeline}"
        return Break(f"the database failed over: WAL timeline {now.wal_timeline} after {was}", rewind=True)
    if snapshot.horizon < state.horizon:
        return Break(f"the database went back: horizon {snapshot.horizon} after {state.horizon}")
    if went_back(state, snapshot):
        return Break(f"the database went back: its log ends at {snapshot.wal_position} after {state.wal_position}")
    if snapshot.next - state.horizon > REACH:
        return Break(f"the table was not read for {snapshot.next - state.horizon} transactions")
    return None


def check_caught_up(state: State, snapshot: Snapshot, table: TableName) -> None:
    """Do nothing where a server shows all that earlier runs have read, or is not to be compared with theirs.

    A standby shows what it has replayed. A primary shows what has ended: a commit that waits for a synchronous standby
    has not yet, though other standbys show it.

    Raises:
        ReplicaBehind: it does not show it yet.
    """
    before = state.database
    if before is None or not state.horizon or before.system != snapshot.database.system:
        return
    if _failed_over(before, snapshot):
        return
    if snapshot.standby:
        if snapshot.horizon < state.horizon:
            raise behind(table, f"the standby is at transaction {snapshot.horizon}, the last run at {state.horizon}")
        if log_offset(snapshot.replayed) < log_offset(state.wal_position):
            reason = f"the standby has replayed the log up to {snapshot.replayed}, the last run {state.wal_position}"
            raise behind(table, reason)
    elif (
        state.standby
        and log_offset(snapshot.wal_position) >= log_offset(state.wal_position)
        and (snapshot.unended or snapshot.horizon < state.horizon)
    ):
        raise behind(table, "a standby has shown transactions whose commits have not ended on the primary")


def behind(table: TableName, reason: str) -> ReplicaBehind:
    """Return the error that a server does not show yet what another has."""
    return ReplicaBehind("read", table, reason, "It is tried again; read from one server if this stays")


def went_back(state: State, snapshot: Snapshot) -> bool:
    """Say whether a server's horizon or log ends before what an earlier run has seen."""
    return snapshot.horizon < state.horizon or log_offset(snapshot.wal_position) < log_offset(state.wal_position)


def _failed_over(before: Database, snapshot: Snapshot) -> bool:
    """Say whether a standby was promoted since. What a standby says of it is too low for a while."""
    now = snapshot.database.wal_timeline
    if now is None:
        return False
    return now > (before.wal_timeline or now) if snapshot.standby else now != before.wal_timeline


def current_database(state: State, snapshot: Snapshot) -> Database:
    """Return which database answered; a standby's WAL timeline is at least the one last heard of."""
    now, before = snapshot.database, state.database
    if snapshot.standby and before is not None:
        known = [wal_timeline for wal_timeline in (before.wal_timeline, now.wal_timeline) if wal_timeline is not None]
        return msgspec.structs.replace(now, wal_timeline=max(known, default=None))
    return now
