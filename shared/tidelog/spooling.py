"""The lake's side of a verification: each segment is held against its event, and its lines are hashed into files."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec
from msgspec.structs import replace

from tidelog.audit import Finding, Kept
from tidelog.hashing import key_reader
from tidelog.playback import Playback
from tidelog.reshaping import Shape
from tidelog.spool import SAID, Spool, latest
from tidelog.stores import Store
from tidelog.sums import Sums
from tidelog.workbench import Progress, Workbench

PATIENCE = 2.0
"""Seconds for which a segment is waited for that a worker may be publishing just now."""
UNSURE, SUPPLIED, SEGMENT = 2**31, 2**30, 2**30 - 1
"""Of the number that is noted with each line: may it be outdated, was it supplied, and which segment is it of."""
_NOTE_LINES = 500_000

Told = Callable[[int], object]


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
        self._segments = segments
        self._finished = finished
        self._newer = newer
        self._told = told

    def check(self) -> tuple[Finding, ...]:
        """Only hold the segments against their events; return what is wrong."""
        done, findings = 0, list[Finding]()
        for key, kept in self._segments:
            findings += self._read(key, kept, lambda _: None, done)
            done += kept.rows
        return tuple(findings)

    def spill(self, progress: Progress, shapes: Sequence[Shape]) -> Progress:
        """Hash the lines into files from where it was; return how far it is then.

        Args:
            progress: how far it was.
            shapes: of the lines of each segment.
        """
        spool = self._bench.spool("lake", progress.bits)
        spool.reset(progress.sizes)
        noted = progress.lines
        for number, (_, kept) in list(enumerate(self._segments))[progress.segments :]:
            findings = self._spilled(spool, number, shapes[number], progress.lines)
            progress = replace(
                progress,
                segments=number + 1,
                lines=progress.lines + kept.rows,
                findings=(*progress.findings, *findings),
            )
            if progress.lines - noted >= _NOTE_LINES or number + 1 == len(self._segments):
                spool.flush()
                progress, noted = replace(progress, sizes=tuple(spool.sizes)), progress.lines
                self._bench.note(progress)
        return progress

    def _spilled(self, spool: Spool, number: int, shape: Shape, done: int) -> list[Finding]:
        key, kept = self._segments[number]
        noted = number | (0 if shape.sure else UNSURE) | (SUPPLIED if kept.supplied else 0)
        reader = key_reader(shape.key) if shape.key else None
        spool.flush()
        before = tuple(spool.sizes)
        unreadable = 0

        def take(lines: list[bytes]) -> None:
            nonlocal unreadable
            if shape.key is None:
                return
            try:
                spool.add_lines(map(shape.line, lines) if shape.columns else lines, reader, noted)
            except msgspec.DecodeError:
                unreadable += 1

        findings = self._read(key, kept, take, done, lambda: spool.reset(before))
        if unreadable and not findings:
            findings.append(Finding("segment", key, "it has lines that are no rows of the table"))
        return findings

    def _read(
        self,
        key: str,
        kept: Kept,
        take: Callable[[list[bytes]], object],
        done: int,
        undo: Callable[[], object] = lambda: None,
    ) -> list[Finding]:
        """Read a segment; return what is wrong with it."""
        playback = Playback(self._store, key, kept)
        for lines in playback.lines(PATIENCE if kept.offset > self._finished else 0.0):
            take(lines)
            self._told(done + playback.rows)
        if not playback.problem:
            return []
        now = self._newer(key)
        if now and now.digest != kept.digest:
            undo()
            return self._read(key, now, take, done, undo)
        what = playback.problem
        if not playback.is_there and kept.offset > self._finished:
            what += (
                f". If the worker that has committed event {kept.offset} has just died, the table's next run does it"
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
