"""Who holds the horizon: the oldest transaction that is still running, in any database of the server.

While it runs, the ids of all that commit after it have to be remembered, VACUUM can't clean up behind it, and its own
rows are not there yet.
"""

from __future__ import annotations

import msgspec


class Holder(msgspec.Struct, frozen=True):
    """A session, or a prepared transaction, as far as the role may see it."""

    pid: int | None = None
    """None of a prepared transaction."""
    prepared: str | None = None
    """Its global identifier (PREPARE TRANSACTION)."""
    user: str | None = None
    database: str | None = None
    application: str | None = None
    since: str | None = None
    """When the transaction began, where the role may see it (pg_read_all_stats)."""

    def __str__(self) -> str:
        what = f"the prepared transaction {self.prepared!r}" if self.prepared is not None else f"session {self.pid}"
        parts = [
            f"of {self.user}" if self.user else "",
            f"in database {self.database}" if self.database else "",
            f"({self.application})" if self.application else "",
            f"open since {self.since}" if self.since else "",
        ]
        return " ".join([what, *filter(None, parts)])

    @property
    def remedy(self) -> str:
        """What ends it, as SQL."""
        if self.prepared is not None:
            name = self.prepared.replace("'", "''")
            return f"COMMIT PREPARED '{name}' or ROLLBACK PREPARED '{name}', in database {self.database}"
        return f"SELECT pg_terminate_backend({self.pid})"


class Horizon(msgspec.Struct, frozen=True):
    """The horizon of a moment."""

    horizon: int
    """Every transaction below it has ended."""
    limit: int
    """The first id that is not visible yet."""
    holder: Holder | None
    """None where nobody is seen that holds it: nothing is running, or it runs on the primary of this standby."""

    @property
    def held(self) -> bool:
        """Whether a transaction is running that others have overtaken, or that is seen."""
        return self.holder is not None or self.horizon < self.limit

    @property
    def who(self) -> str:
        """Who holds it, as far as the role may see."""
        return str(self.holder or "one that this role can't see")

    @property
    def remedy(self) -> str:
        """What to do about it."""
        if self.holder:
            return f"To end it: {self.holder.remedy}"
        return "Look in pg_stat_activity (backend_xid) and pg_prepared_xacts of the primary, as a superuser"
