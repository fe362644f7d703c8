"""Which column of today's table a key in an old line is: across renames, and across tables created anew."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec

from tidelog.events import Event, TimelineStarted
from tidelog.schema import SchemaDocument


class _Age(msgspec.Struct):
    """The time in which a table was one and the same, so that numbers tell its columns apart."""

    first: str | None = None
    """Fingerprint of the document that its first reading found."""
    last: str | None = None


class Lineage:
    """What the events of a table tell of its columns.

    Within a table a column is known by its number, which a rename keeps. A timeline that reads the table whole may be
    about another table of the same name, where numbers mean nothing: across it columns go by their names.

    Args:
        load: returns a schema document by its fingerprint.
    """

    def __init__(self, load: Callable[[str], SchemaDocument]) -> None:
        self._load = load
        self._ages = [_Age()]
        self._described: dict[str, tuple[int, str]] = {}

    def add(self, event: Event) -> None:
        """Take the next event."""
        if isinstance(event.what, TimelineStarted) and event.what.resume is None:
            self._ages.append(_Age())
        age = self._ages[-1]
        if event.state.horizon and age.first is None:
            age.first = event.state.schema
        age.last = event.state.schema
        if event.segment:  # One that was made again is described by the event of that.
            self._described[event.segment.key] = (len(self._ages) - 1, event.segment.schema)

    def knows(self, key: str) -> bool:
        """Say whether an event has named a segment."""
        return key in self._described

    def names(self, key: str, current: SchemaDocument) -> Mapping[str, str]:
        """Return the columns of the current document that the lines of a segment have, each with its name there.

        Raises:
            KeyError: no event has named the segment.
        """
        age, fingerprint = self._described[key]
        document = self._load(fingerprint)
        names = {column.name: column.name for column in document.columns}
        for here, after in zip(self._ages[age:-1], self._ages[age + 1 :], strict=True):
            names, document = self._carry(names, document, here.last, anew=False)
            names, document = self._carry(names, document, after.first or after.last, anew=True)
        return {name: names[was] for name, was in current.names_in(document).items() if was in names}

    def _carry(
        self, names: Mapping[str, str], document: SchemaDocument, into: str | None, *, anew: bool
    ) -> tuple[dict[str, str], SchemaDocument]:
        newer = self._load(into) if into else document
        return {name: names[was] for name, was in newer.names_in(document, anew=anew).items() if was in names}, newer
