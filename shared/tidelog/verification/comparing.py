"""The rows of an open table, as the server counts and hashes them, held against those of the lake."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import closing

from tidelog.columns import json_text, key_text
from tidelog.opening import OpenTable
from tidelog.stream import pull
from tidelog.tables import Leaf
from tidelog.verification.coverage import Coverage, page_ranges
from tidelog.verification.hashing import group_sql, hash_sql
from tidelog.verification.spool import Spool
from tidelog.verification.sums import Sums

_ROW = '"~t"'
_PIECES = 64
_LEAST_BYTES, _MOST_BYTES = 2**26, 2**34
_NAMED_GROUPS = 20_000
"""Where more groups differ, all rows are looked at."""
PENDING, COVERED, HIDDEN = range(3)

Piece = tuple[int, int, int, int]
"""Of a relation: its oid, the number of its file, its first page and the one behind the last."""


class Comparing:
    """Asks for the rows of a table, a piece at a time.

    Args:
        opened: the table, under the snapshot that all is compared in.
        coverage: which of its rows are in the lake.
        steps: pages of a piece, by relation, where that was settled before.
    """

    def __init__(self, opened: OpenTable, coverage: Coverage, steps: Mapping[int, int]) -> None:
        self.steps = dict(steps)
        """Pages of a piece, by relation."""
        self._opened = opened
        self._coverage = coverage
        self._table = opened.table
        # A group takes some hundred bytes, and there are 65,536. Between two questions files may be gone through.
        opened.prepare(work_mem="64MB", idle_in_transaction_session_timeout="0")

    @property
    def pieces(self) -> list[tuple[Leaf, Piece]]:
        """All pieces of the table's relations."""
        whole = sum(leaf.size for leaf in self._table.leaves)
        share = min(max(_LEAST_BYTES, whole // _PIECES), _MOST_BYTES)
        for leaf in self._table.leaves:
            self.steps.setdefault(leaf.oid, max(1, leaf.pages * share // max(1, leaf.size)))
        return [
            (leaf, (leaf.oid, leaf.filenode, first, end))
            for leaf in self._table.leaves
            for first, end in page_ranges(leaf, self.steps[leaf.oid])
        ]

    def sum_up(self, leaf: Leaf, piece: Piece, sums: Sums) -> None:
        """Add what the server counts in a piece."""
        sums.add_groups(
            b"".join(
                self._told(
                    f"SELECT {group_sql('k')}, count(*) FILTER (WHERE c), coalesce(sum(h), 0), "
                    f"count(*) FILTER (WHERE NOT c) FROM ({self._rows(leaf, piece)}) rows GROUP BY 1"
                )
            )
        )

    def fetch(self, leaf: Leaf, piece: Piece, groups: Collection[int], spool: Spool) -> None:
        """Add the hashes of a piece's rows in some groups to files, each with what the lake should have of it."""
        some = f"{group_sql(self._key)} = ANY ({_array(groups, 'int')})" if len(groups) <= _NAMED_GROUPS else "true"
        unseen = self._coverage.unseen(leaf, _ROW)
        question = (
            f"SELECT k, coalesce(h, 0), CASE WHEN NOT c THEN {PENDING} WHEN u THEN {HIDDEN} ELSE {COVERED} END "
            f"FROM ({self._rows(leaf, piece, f'{unseen} AS u', where=some)}) rows"
        )
        for block in self._told(question):
            lines = (line.split(b"\t") for line in block.split(b"\n")[:-1])
            spool.add((int(key), int(value), int(kind)) for key, value, kind in lines)

    def names(self, keys: Collection[int]) -> dict[int, str]:
        """Return the keys of some hashes as they are in the rows."""
        found: dict[int, str] = {}
        for leaf, piece in self.pieces:
            rows = self._rows(leaf, piece, f"{key_text(self._table, _ROW)} AS name")
            question = f"SELECT k, to_json(name)::text FROM ({rows}) rows WHERE k = ANY ({_array(keys, 'bigint')})"
            for line in b"".join(self._told(question)).split(b"\n")[:-1]:
                key, _, name = line.partition(b"\t")
                found[int(key)] = _unescaped(name)
        return found

    @property
    def _line(self) -> str:
        return hash_sql(json_text(self._table, _ROW))

    @property
    def _key(self) -> str:
        return hash_sql(key_text(self._table, _ROW)) if self._table.key else self._line

    def _rows(self, leaf: Leaf, piece: Piece, *more: str, where: str = "true") -> str:
        """Return as SQL the rows of a piece: k, the hash of the key; c, whether it is covered; h, the line's hash."""
        _, _, first, end = piece
        covered = self._coverage.covered(leaf, _ROW)
        line = f"CASE WHEN {covered} THEN {self._line} END AS h"
        selected = ", ".join([f"{self._key} AS k", f"{covered} AS c", line, *more])
        return (
            f"SELECT {selected} FROM ONLY {leaf.table_name.sql} {_ROW} "
            f"WHERE {_ROW}.ctid >= '({first},0)'::tid AND {_ROW}.ctid < '({end},0)'::tid AND {where} OFFSET 0"
        )

    def _told(self, question: str) -> Iterator[bytes]:
        with closing(pull(lambda sink: self._opened.tell(question, sink))) as blocks:
            yield from blocks


Judge = Callable[[int, bytes, bytes | None], object]
"""Is told of a row that differs: the hash of its key, what is said of it, and of the latest line of its key."""


def compare(lake: dict[int, bytes], rows: Iterable[tuple[int, bytes]], judge: Judge) -> None:
    """Hold rows against the latest lines of their keys. These are taken out; what is left is of no row."""
    for key, said in rows:
        line = lake.pop(key, None)
        if said[11] != PENDING and (line is None or line[:8] != said[:8]):
            judge(key, said, line)


def compare_lines(lake: Counter[int], rows: Iterable[tuple[int, bytes]], judge: Judge) -> None:
    """Look for each row among the lines, as often as it is there."""
    for line, said in rows:
        if said[11] == PENDING:
            continue
        if lake[line] <= 0:
            judge(line, said, None)
        lake[line] -= 1


def _array(values: Iterable[int], kind: str) -> str:
    return f"'{{{','.join(map(str, values))}}}'::{kind}[]"


def _unescaped(text: bytes) -> str:
    """Return a JSON string as COPY prints it, which doubles its backslashes."""
    read: str = json.loads(text.replace(b"\\\\", b"\\"))
    return read
