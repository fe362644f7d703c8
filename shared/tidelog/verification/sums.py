"""Counts and sums of hashes by groups of keys: two sets of rows in which they are alike are the same rows."""

from __future__ import annotations

from array import array
from collections.abc import Iterable

from tidelog.verification.hashing import GROUPS

_WHOLE = 2**64


class Sums:
    """For each group how many rows there are, and the sum of their lines' hashes, modulo 2**64."""

    def __init__(self) -> None:
        self.counts = [0] * GROUPS
        self.sums = [0] * GROUPS
        self.others = 0
        """Rows that are not counted, for whatever reason."""

    @property
    def rows(self) -> int:
        """How many were counted."""
        return sum(self.counts)

    def add(self, rows: Iterable[tuple[int, int]]) -> None:
        """Count rows: hashes of their keys and of their lines."""
        counts, sums = self.counts, self.sums
        for key, value in rows:
            group = (key >> 48) & 65535
            counts[group] += 1
            sums[group] += value

    def add_groups(self, lines: bytes) -> None:
        """Count what a server has: lines of group, count, sum and others, with tabs between them."""
        for line in lines.split(b"\n")[:-1]:
            group, count, total, others = map(int, line.split(b"\t"))
            self.counts[group] += count
            self.sums[group] += total
            self.others += others

    def differing(self, other: Sums) -> list[int]:
        """Return the groups in which two differ."""
        mine = zip(self.counts, self.sums, strict=True)
        its = zip(other.counts, other.sums, strict=True)
        return [
            group for group, (a, b) in enumerate(zip(mine, its, strict=True)) if a[0] != b[0] or (a[1] - b[1]) % _WHOLE
        ]

    def encode(self) -> bytes:
        """Return them as bytes."""
        return array("Q", [self.others, *self.counts, *(total % _WHOLE for total in self.sums)]).tobytes()

    @classmethod
    def decode(cls, data: bytes) -> Sums:
        """Read what `encode` wrote."""
        numbers, found = array("Q", data), cls()
        found.others, found.counts, found.sums = numbers[0], [*numbers[1 : 1 + GROUPS]], [*numbers[1 + GROUPS :]]
        return found
