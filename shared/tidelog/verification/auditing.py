"""A ledger is audited: its events are read one after another, and the objects that it names are looked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from itertools import islice

import msgspec

from tidelog.errors import UnreadableData
from tidelog.events import Event
from tidelog.lake import event_key, ledger_prefix, read_event_key, schema_key
from tidelog.parameters import Summary, summarize
from tidelog.partitions import Partitions
from tidelog.records import decode
from tidelog.schema import SchemaDocument
from tidelog.stores import NoSuchObjectError, Store
from tidelog.tables import TableName
from tidelog.verification.audit import Audit, Finding, Kind

_AT_ONCE = 8
_BATCH = 64


class Auditing:
    """Audits the ledger of one table.

    Args:
        store: the lake.
        table: the table.
    """

    def __init__(self, store: Store, table: TableName) -> None:
        self._store = store
        self.table = table
        self._at = 0
        self._summary: Summary | None = None
        self.audit = Audit(table, self.event)
        self.findings: list[Finding] = []
        self.documents: dict[str, SchemaDocument] = {}
        """The schema documents, by fingerprint."""
        self.events = 0
        """How many were read."""

    def read(self) -> Iterator[int]:
        """Read the events that are there since it was last called; yield how many are read in all, now and then.

        Raises:
            AccessDenied, StoreUnreachable: as they say.
        """
        offsets = self._offsets()
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            while some := list(islice(offsets, _BATCH)):
                for offset, event in zip(some, pool.map(self._event, some), strict=True):
                    self._take(offset, event)
                self.events += len(some)
                yield self.events

    def event(self, offset: int) -> Event | None:
        """Return an event, None where there is none or it can't be read."""
        found = self._event(offset)
        return found if isinstance(found, Event) else None

    def _offsets(self) -> Iterator[int]:
        """Yield the offsets of the next events."""
        after = event_key(self.table, self._at) if self._at else ""
        for found in self._store.keys(ledger_prefix(self.table), after):
            try:
                yield read_event_key(found.key)[1]
            except ValueError:
                self._find("foreign", found.key, "it is not the name of an event")

    def _take(self, offset: int, event: Event | str) -> None:
        if offset > self._at + 1:
            missing = event_key(self.table, self._at + 1)
            more = f", and the {offset - self._at - 2} behind it" if offset > self._at + 2 else ""
            self._find("event", missing, f"there is no such event{more}")
            self.audit.miss()
        if isinstance(event, str):
            self._find("event", event_key(self.table, offset), event)
            self.audit.miss()
        else:
            self.findings += self.audit.add(event, offset)
        self._at = offset

    def _event(self, offset: int) -> Event | str:
        """Return an event, or why it can't be read."""
        try:
            return decode(self._store.read(event_key(self.table, offset)))
        except NoSuchObjectError:
            return "there is no such event"
        except msgspec.DecodeError as error:
            return f"it is not an event: {error}"

    def check_documents(self) -> None:
        """Read every document that the events name, and hold its content against its name."""
        for fingerprint in sorted(self.audit.documents):
            key = schema_key(self.table, fingerprint)
            try:
                self._document(key, fingerprint)
            except NoSuchObjectError:
                self._find("document", key, "there is no such document, though events name it")
            except msgspec.DecodeError as error:
                self._find("document", key, f"it is not what it should be: {error}")

    def _document(self, key: str, fingerprint: str) -> None:
        kind: type[Partitions | SchemaDocument] = SchemaDocument
        if fingerprint.startswith("partitions-"):
            kind = Partitions
        document = msgspec.json.decode(self._store.read(key), type=kind)
        if document.fingerprint != fingerprint:
            raise msgspec.ValidationError(f"the fingerprint of its content is {document.fingerprint}")
        if isinstance(document, SchemaDocument):
            self.documents[fingerprint] = document

    def check_foreign(self) -> Iterator[int]:
        """Look for objects of the table that no event names; yield how many events are read, now and then.

        A schema document is written before its event, so one that nobody names is what a run has left that died in
        between: it may be there if it is what its name says.
        """
        strange = [found.key for found in self._store.keys(f"data/{self.table.path}/")]
        strange = [key for key in strange if key not in self.audit.segments]
        prefix = f"schema/{self.table.path}/"
        left = [found.key for found in self._store.keys(prefix)]
        yield from self.read()  # An object is there after its event: one that is newer is known by now.
        for key in strange:
            if key not in self.audit.segments:
                self._find("foreign", key, "no event names it: tidelog has not written it, or an event is missing")
        for key in left:
            fingerprint = key.removeprefix(prefix).removesuffix(".json")
            if fingerprint in self.audit.documents:
                continue
            try:
                self._document(key, fingerprint)
            except NoSuchObjectError:
                pass
            except msgspec.DecodeError:
                self._find("foreign", key, "no event names it, and it is no document of that name")

    def read_summary(self, read: Callable[[], Summary | None]) -> None:
        """Read what Parameter Store says, as long as nothing of the ledger was read."""
        try:
            self._summary = read()
        except UnreadableData as error:
            self._find("summary", str(self.table), error.reason)

    def check_summary(self) -> None:
        """Hold what Parameter Store has said against the ledger."""
        summary = self._summary
        if summary is None or summary.is_blank:
            return
        if summary.offset > self._at:
            what = f"its parameter is ahead of the ledger: it tells of event {summary.offset}, the last is {self._at}"
            self._find("summary", str(self.table), what)
            return
        event = self.event(summary.offset)
        if event is None:  # That is a finding of its own.
            return
        said = summarize(event.state, datetime.now(UTC))
        if wrong := [
            name
            for name in Summary.__struct_fields__
            if name not in ("checked_at", "tally") and getattr(said, name) != getattr(summary, name)
        ]:
            what = f"its parameter does not say what event {summary.offset} does: {', '.join(wrong)}"
            self._find("summary", str(self.table), what)

    def _find(self, kind: Kind, where: str, what: str) -> None:
        found = Finding(kind, where, what)
        if found not in self.findings:  # A name that is none is seen whenever events are looked for.
            self.findings.append(found)
