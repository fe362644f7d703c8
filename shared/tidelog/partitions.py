"""The partitions of a table: which relations hold its rows, and in words how that has changed."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import msgspec

from tidelog.schema import fingerprint_of, listed


class Partitions(msgspec.Struct, frozen=True):
    """The relations that hold a partitioned table's rows at some time; kept at `schema/<table>/<fingerprint>.json`.

    Neither a schema document nor an event holds them: there may be thousands.
    """

    table: str
    names: Mapping[int, str]
    """By oid."""

    @property
    def fingerprint(self) -> str:
        """Stands for the oids and the names; no schema document has such a one."""
        return f"partitions-{fingerprint_of(sorted(self.names.items()))}"

    def difference(self, older: Partitions, there: Collection[int]) -> str:
        """Say in words how they differ from those of before.

        Args:
            older: those of before.
            there: which of these are in the database still.
        """
        new, old = self.names, older.names
        words = [f"partition {new[oid]} attached" for oid in new if oid not in old]
        words += [f"partition {old[oid]} {'detached' if oid in there else 'dropped'}" for oid in old if oid not in new]
        words += [f"partition {old[oid]} renamed to {new[oid]}" for oid in new if old.get(oid, new[oid]) != new[oid]]
        return listed(words, "; ")
