"""A table is verified: its ledger against itself, its objects against the ledger, the lake against the database."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from msgspec.structs import replace

from tidelog.credentials import Credentials
from tidelog.errors import StoreUnreachable, TidelogError, UnknownTable
from tidelog.parameters import Summary
from tidelog.source import Source
from tidelog.stores import Store
from tidelog.tables import TableName
from tidelog.tablesettings import Section, TableSettings
from tidelog.verification.audit import Kept
from tidelog.verification.auditing import Auditing
from tidelog.verification.matching import Lake, Matching, Tell
from tidelog.verification.spooling import Spooling
from tidelog.verification.verdict import Verified
from tidelog.verification.workbench import Workbench

_LOCK_SECONDS = 10.0


class Verifying:
    """Verifies tables.

    Args:
        store: the lake.
        credentials: reads the database and the role; None leaves the database alone.
        tls: "verify-full", "require" or "disable".
        work: a folder for what is done so far.
        tell: is told how far it is.
        most_keys: how many keys are named of a table.
    """

    def __init__(
        self,
        store: Store,
        credentials: Callable[[], Credentials] | None,
        tls: str,
        *,
        work: Path,
        tell: Tell = lambda *_: None,
        most_keys: int = 20,
    ) -> None:
        self._store = store
        self._work = work
        self._tell = tell
        self._most_keys = most_keys
        self._excluded: dict[TableName, TableSettings] = {}
        self._source: Source | None = None
        if credentials:
            self._source = Source(credentials, tls, lock_seconds=_LOCK_SECONDS, settings=self._settings)

    def close(self) -> None:
        """Close the connection."""
        if self._source:
            self._source.close()

    def clear(self) -> None:
        """Delete what is kept in the folder: the next verification begins anew."""
        shutil.rmtree(self._work, ignore_errors=True)

    def verify(self, table: TableName, summary: Callable[[], Summary | None] = lambda: None) -> Verified:
        """Verify a table, or return what came of it where that is in the folder already.

        Args:
            table: the table.
            summary: reads what Parameter Store says of it.

        Raises:
            TidelogError: the lake can't be read. If the database can't, that is part of what comes of it.
        """
        bench = Workbench(self._work / hashlib.sha256(table.path.encode()).hexdigest()[:16])
        if found := bench.result():
            return found
        auditing = Auditing(self._store, table)
        auditing.read_summary(summary)  # Before the ledger: it is never ahead of it.
        self._read(auditing.read())
        auditing.check_summary()
        auditing.check_documents()
        found = self._compared(auditing, table, bench)
        self._read(auditing.check_foreign())
        found = replace(found, events=auditing.events, findings=(*auditing.findings, *found.findings))
        bench.finish(found)
        return found

    def _read(self, counts: Iterator[int]) -> None:
        for count in counts:
            self._tell("events", count, 0)

    def _settings(self, table: TableName) -> TableSettings:
        return self._excluded.get(table, TableSettings())

    def _compared(self, auditing: Auditing, table: TableName, bench: Workbench) -> Verified:
        """Compare the rows, or only read the segments where the database can't be asked."""
        side = Lake.of(auditing, bench.progress())
        if document := auditing.documents.get(side.state.schema or ""):
            sections = {"exclude_columns": Section("the ledger", exact=False)}
            self._excluded[table] = TableSettings(exclude_columns=document.excluded, sections=sections)
        lines = sum(kept.rows for _, kept in side.segments)
        bare = Verified(table=str(table), offset=side.state.offset, events=0, segments=len(side.segments), lines=lines)
        spooling = Spooling(
            self._store,
            bench,
            side.segments,
            finished=auditing.audit.finished,
            newer=lambda key: self._newer(auditing, key),
            told=lambda done: self._tell("lines", done, lines),
        )
        reason = ""
        if self._source:
            try:
                matching = Matching(side, auditing, spooling, bench, tell=self._tell, most_keys=self._most_keys)
                return matching.match(self._source, bare)
            except StoreUnreachable:
                raise
            except UnknownTable as error:
                state = side.state
                if not (state.database and self._source.is_on(state.database, state.horizon)):
                    reason = str(error)
            except TidelogError as error:
                reason = str(error)
        return replace(bare, findings=spooling.check(), reason=reason)

    def _newer(self, auditing: Auditing, key: str) -> Kept | None:
        self._read(auditing.read())
        return auditing.audit.segments.get(key)
