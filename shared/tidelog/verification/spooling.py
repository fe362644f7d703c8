"""The lake's side of a verification: each segment is held against its event, and its lines are hashed into files."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress

import msgspec
from msgspec.structs import replace

from tidelog.stores import Store
from tidelog.verification.audit import Finding, Kept
from tidelog.verification.hashing import key_reader
from tidelog.verification.playback import Playback
from tidelog.verification.reshaping import Shape
from tidelog.verification.spool import SAID, Spool, latest
from tidelog.verification.sums import Sums
from tidelog.verification.workbench import Progress, Workbench

PATIENCE = 2.0
"""Seconds for which a segment is waited for that a worker may be publishing just now."""
UNSURE, SUPPLIED, SEGMENT = 2**31, 2**30, 2**30 - 1
"""Of the number that is noted with each line: may it be outdated, was it supplied, and which segment is it of."""
_NOTE_LINES = 500_000

Told = Callable[[int], object]


class _MadeAgainError(Exception):
    """A segment was made again."""


class Spooling:
    """Reads the segments of a table, in the order of their positions.

    Args:
        store: the lake.
        bench: where the files are.
        segments: keys, and what their events say.
        finished: an offset up to which all was published.
        newer: says once more what the events say of a key: a lost segment may have been made again meanwhile.
        told: is told how many lines are done.
    """

    def __init__(
        self,
        store: Store,
        bench: Workbench,
        segments: Sequence[tuple[str, Kept]],
        *,
        finished: int,
        newer: Callable[[str], Kept | None],
        told: Told,
    ) -> None:
        self._store = store
        self._bench = bench
        self._segments = list(segments)
        self._finished = finished
        self._newer = newer
        self._told = told

    def check(self) -> tuple[Finding, ...]:
        """Only hold the segments against their events; return what is wrong."""
        done, findings = 0, list[Finding]()
        for number in range(len(self._segments)):
            while True:
                try:
                    findings += self._read(number, lambda _: None, done)
                    break
                except _MadeAgainError:
                    continue
            done += self._segments[number][1].rows
        return tuple(findings)

    def spill(self, progress: Progress, shapes: Sequence[Shape]) -> Progress:
        """Hash the lines into files from where it was; return how far it is then.

        Args:
            progress: how far it was.
            shapes: of the lines of each segment.
        """
        spool = self._bench.spool("lake", progress.bits)
        while progress.segments < len(self._segments):
            spool.reset(progress.sizes)
            with suppress(_MadeAgainError):
                for noted in self._spilled(spool, progress, shapes):
                    self._bench.note(noted)
                    progress = noted
        return progress

    def _spilled(self, spool: Spool, progress: Progress, shapes: Sequence[Shape]) -> Iterator[Progress]:
        """Hash the lines of one segment after the other; yield how far it is, now and then."""
        lines, findings, noted = progress.lines, list(progress.findings), progress.lines
        for number in range(progress.segments, len(self._segments)):
            key, kept = self._segments[number]
            shape, strange, known = shapes[number], list[bytes](), len(findings)
            findings += self._read(number, self._taking(spool, number, shape, strange), lines)
            if strange and len(findings) == known:
                what = f"{len(strange):,} of its lines are no rows of the table"
                findings.append(Finding("segment", key, what))
            lines += kept.rows
            if lines - noted >= _NOTE_LINES or number + 1 == len(self._segments):
                spool.flush()
                noted, sizes = lines, tuple(spool.sizes)
                yield replace(progress, segments=number + 1, lines=lines, sizes=sizes, findings=tuple(findings))

    def _taking(self, spool: Spool, number: int, shape: Shape, strange: list[bytes]) -> Callable[[list[bytes]], object]:
        """Return what adds lines of a segment, but for those that are no rows."""
        noted = number | (0 if shape.sure else UNSURE) | (SUPPLIED if self._segments[number][1].supplied else 0)
        reader = key_reader(shape.key) if shape.key else None

        def take(lines: list[bytes]) -> None:
            try:
                spool.add_lines(map(shape.line, lines) if shape.columns is not None else lines, reader, noted)
            except msgspec.DecodeError:
                if len(lines) == 1:
                    strange.append(b"")
                else:
                    for line in lines:  # Those before it were added, and are once more.
                        take([line])

        return (lambda _: None) if shape.key is None else take

    def _read(self, number: int, take: Callable[[list[bytes]], object], done: int) -> list[Finding]:
        """Read a segment; return what is wrong with it.

        Raises:
            _MadeAgainError: it was lost, and made again meanwhile. It is to be held against the newer event.
        """
        key, kept = self._segments[number]
        unpublished = kept.offset > self._finished
        playback = Playback(self._store, key, kept)
        for lines in playback.lines(PATIENCE if unpublished else 0.0):
            take(lines)
            self._told(done + playback.rows)
        if not playback.problem:
            return []
        now = self._newer(key)
        if now and now.digest != kept.digest:
            self._segments[number] = (key, now)
            raise _MadeAgainError
        what = playback.problem
        if unpublished and not playback.is_there:
            what += (
                f". If the worker that has committed event {kept.offset} has died, the table's next run publishes it"
            )
        return [Finding("segment", key, what)]

    def sums(self, bits: int, *, keyed: bool) -> Sums:
        """Return what the lake has: of each key its latest line, or all lines where there are no keys."""
        spool, sums = self._bench.spool("lake", bits), Sums()
        for number in range(len(spool)):
            if keyed:
                found = latest(spool.records(number))
                said = SAID.iter_unpack(b"".join(found.values()))
                sums.add((key, value) for key, (value, _) in zip(found, said, strict=True))
            else:
                sums.add((key, key) for key, _ in spool.records(number))
        return sums
