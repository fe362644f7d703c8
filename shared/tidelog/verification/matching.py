"""A table is matched with its lake up to one event: counts and sums first, and then the rows of groups that differ."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import msgspec
from msgspec.structs import replace

from tidelog.continuity import find_break
from tidelog.errors import DatabaseBusy
from tidelog.hidden import Hidden
from tidelog.lake import read_segment_key
from tidelog.opening import OpenTable
from tidelog.schema import SchemaDocument
from tidelog.source import Source
from tidelog.state import State
from tidelog.sweeps import unswept
from tidelog.tables import Table, TableName
from tidelog.verification.audit import Kept
from tidelog.verification.auditing import Auditing
from tidelog.verification.comparing import HIDDEN, Comparing, compare, compare_lines
from tidelog.verification.coverage import Coverage
from tidelog.verification.hashing import group_of
from tidelog.verification.reshaping import Shape, Step, shape
from tidelog.verification.spool import SAID, bits_for, counted, latest
from tidelog.verification.spooling import SEGMENT, SUPPLIED, UNSURE, Spooling
from tidelog.verification.sums import Sums
from tidelog.verification.verdict import Cause, Differing, Verified
from tidelog.verification.workbench import VERSION, Progress, Workbench

Tell = Callable[[str, int, int], object]
"""Is told what is done, how much of it, and how much there is (0 where nobody knows)."""
_SECONDS = 14 * 86400.0
_ATTEMPTS = 3


class Lake(msgspec.Struct, frozen=True):
    """A table's lake up to one event.

    Attributes:
        table: the table.
        state: after that event.
        segments: those that were committed by then, in the order of their positions.
        progress: what is done of just this, None where nothing is.
    """

    table: TableName
    state: State
    segments: tuple[tuple[str, Kept], ...]
    progress: Progress | None

    @classmethod
    def of(cls, auditing: Auditing, progress: Progress | None) -> Lake:
        """Return the lake up to the newest event, or up to the one that was newest when what is done was begun."""
        state, audit = auditing.audit.state, auditing.audit
        event = auditing.event(progress.offset) if progress and progress.offset <= state.offset else None
        if progress and event and event.digest == progress.digest:
            state = event.state
        else:
            progress = None
        found = []
        for key, kept in audit.segments.items():
            if kept.origin <= state.offset:
                try:
                    found.append((read_segment_key(key)[1], key, kept))
                except ValueError:
                    continue  # That is a finding.
        return cls(
            auditing.table,
            state,
            tuple((key, kept) for _, key, kept in sorted(found, key=lambda each: each[0])),
            progress,
        )


class _AlteredError(Exception):
    """The table was altered since it was looked at first."""


class Matching:
    """Matches a table with its lake."""

    def __init__(
        self,
        lake: Lake,
        auditing: Auditing,
        spooling: Spooling,
        bench: Workbench,
        *,
        tell: Tell,
        most_keys: int,
    ) -> None:
        self._auditing = auditing
        self._lake = lake
        self._bench = bench
        self._spooling = spooling
        self._tell = tell
        self._most_keys = most_keys
        self._unkeyed = False

    def match(self, source: Source, bare: Verified) -> Verified:
        """Read the lake, and then the table: rows that change meanwhile are pending.

        Args:
            source: the database.
            bare: what is known so far.

        Raises:
            TidelogError: why the table could not be read.
        """
        table = self._lake.table
        for _ in range(_ATTEMPTS):
            with source.open(table, seconds=_SECONDS, after=self._lake.state) as opened:
                description = opened.table
            progress = self._spilled(description)
            try:
                with source.open(table, seconds=_SECONDS, after=self._lake.state) as opened:
                    found = self._held(opened, description, progress, bare)
            except _AlteredError:
                continue
            return replace(found, findings=progress.findings, keyed=bool(description.key))
        raise DatabaseBusy("compare", table, "it was altered again and again meanwhile", "Verify it again")

    def _spilled(self, table: Table) -> Progress:
        """Have all lines of the lake hashed, as they would be written of the table as it is."""
        document, state, done = table.document(), self._lake.state, self._lake.progress
        rows = sum(kept.rows for _, kept in self._lake.segments)
        progress = Progress(VERSION, state.offset, state.digest, document.fingerprint, bits_for(rows))
        if done and done.document == progress.document:
            progress = done
        shapes = [self._shape(kept, table, document) for _, kept in self._lake.segments]
        self._unkeyed = any(each.key is None or not (each.sure or table.key) for each in shapes)
        progress = self._spooling.spill(progress, shapes)
        if not progress.summed:
            self._bench.keep_lake_sums(self._spooling.sums(progress.bits, keyed=bool(table.key)))
            progress = replace(progress, summed=True)
            self._bench.note(progress)
        return progress

    def _shape(self, kept: Kept, table: Table, now: SchemaDocument) -> Shape:
        documents = self._auditing.documents
        later = [each for each in self._auditing.audit.alterations if each.offset > kept.offset]
        if kept.schema not in documents or any(each.schema not in documents for each in later):
            return Shape(None, now.key, sure=False)  # A document is missing, which is a finding.
        steps = [Step(documents[each.schema], each.outdated) for each in later]
        return shape(documents[kept.schema], [*steps, Step(now, "", table.filled)], now)

    def _held(self, opened: OpenTable, description: Table, progress: Progress, bare: Verified) -> Verified:
        if opened.table.document().fingerprint != description.document().fingerprint:
            raise _AlteredError
        state, audit = self._lake.state, self._auditing.audit
        if broken := find_break(state, opened.snapshot, opened.table):
            return replace(bare, reason=f"{broken.reason}. The table's next run begins a new timeline")
        plans = {plan.number: planned for plan in state.plans if (planned := audit.plan(plan.number))}
        coverage = Coverage(opened.table, state, plans, self._hidden(), opened.snapshot)
        comparing = Comparing(opened, coverage, progress.steps)
        progress, server = self._summed(comparing, progress)
        bare = replace(bare, rows=server.rows, pending=server.others)
        if groups := self._bench.lake_sums().differing(server):
            self._fetch(comparing, groups, progress.bits)
            return self._judged(comparing, set(groups), progress.bits, bare, keyed=bool(description.key))
        return bare

    def _hidden(self) -> tuple[Hidden, ...]:
        state = self._lake.state
        if not state.unswept:
            return ()
        events = map(self._auditing.event, range(state.unswept, state.offset + 1))
        return unswept(state, filter(None, events)).hidden

    def _summed(self, comparing: Comparing, progress: Progress) -> tuple[Progress, Sums]:
        """Have the server count and sum up its rows, but for pieces that it has done."""
        pieces = comparing.pieces
        files = {leaf.oid: leaf.filenode for leaf, _ in pieces}
        if any(files.get(oid) != filenode for oid, filenode, *_ in progress.pieces):
            progress = replace(progress, pieces=())  # It was rewritten since, and its rows are elsewhere.
        sums = self._bench.server_sums(len(progress.pieces))
        for number, (leaf, piece) in enumerate(pieces, 1):
            if any(piece[:2] == done[:2] and done[2] <= piece[2] and piece[3] <= done[3] for done in progress.pieces):
                continue
            comparing.sum_up(leaf, piece, sums)
            progress = replace(progress, pieces=(*progress.pieces, piece), steps=comparing.steps)
            self._bench.keep_server_sums(sums, len(progress.pieces))
            self._bench.note(progress)
            self._tell("rows", sums.rows + sums.others, (sums.rows + sums.others) * len(pieces) // number)
        return progress, sums

    def _fetch(self, comparing: Comparing, groups: list[int], bits: int) -> None:
        """Fetch the hashes of the rows in some groups."""
        spool = self._bench.spool("rows", bits)
        spool.reset()
        pieces = comparing.pieces
        for number, (leaf, piece) in enumerate(pieces, 1):
            comparing.fetch(leaf, piece, groups, spool)
            self._tell("differing groups", number, len(pieces))
        spool.flush()

    def _judged(self, comparing: Comparing, groups: set[int], bits: int, bare: Verified, *, keyed: bool) -> Verified:
        """Hold the rows of some groups against the lake's latest lines, and say what differs and why."""
        lake, rows = self._bench.spool("lake", bits), self._bench.spool("rows", bits)
        causes, named, gone = Counter[Cause](), dict[int, tuple[bytes, bytes | None, Cause]](), 0

        def judge(key: int, said: bytes, line: bytes | None) -> None:
            cause = self._cause(said, line)
            causes[cause] += 1
            if len(named) < self._most_keys and cause != "supplied":
                named[key] = (said, line, cause)

        for file in sorted({lake.file_of(group) for group in groups}):
            records = (each for each in lake.records(file) if group_of(each[0]) in groups)
            those = (each for each in rows.records(file) if group_of(each[0]) in groups)
            if keyed:
                found = latest(records)
                compare(found, those, judge)
                gone += len(found)
            else:
                compare_lines(counted(records), those, judge)
        keys = self._named(comparing, named) if keyed and named else ()
        return replace(bare, causes=dict(causes), keys=keys, gone=gone)

    def _cause(self, said: bytes, line: bytes | None) -> Cause:
        if said[11] == HIDDEN:
            return "hidden"
        if line is None:
            return "outdated" if self._unkeyed else ""
        noted = SAID.unpack(line)[1]
        if noted & SUPPLIED:
            return "supplied"
        return "outdated" if noted & UNSURE else ""

    def _named(
        self, comparing: Comparing, found: dict[int, tuple[bytes, bytes | None, Cause]]
    ) -> tuple[Differing, ...]:
        names, segments = comparing.names(found), self._lake.segments
        return tuple(
            Differing(
                key=names.get(key, ""),
                how="different" if line else "missing",
                cause=cause,
                where=segments[SAID.unpack(line)[1] & SEGMENT][0] if line else "",
            )
            for key, (_, line, cause) in found.items()
        )
