"""A large table that never rests, and what its lake has to hold, in memory that grows with its ids alone."""

from __future__ import annotations

import gzip
import random
import re
import threading
import time
from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Any

from pg8000.exceptions import DatabaseError

from tests.chaos.stack import Stack
from tests.tide import Database, Tide
from tidelog.lake import read_segment_key
from tidelog.tables import TableName
from tidelog_sandbox import Invocation

TABLE = "public.t"
WRITERS = 3
HOT = 200
"""So many rows are written again and again."""
_BLOCK = 100_000
_ROW = re.compile(rb'^\{"id":(\d+),"version":(\d+),', re.MULTILINE)
_IS_READ = """
SELECT count(*) FROM pg_stat_activity
WHERE datname = current_database() AND xact_start IS NOT NULL AND query LIKE 'COPY%ctid%'
"""


def fill(database: Database, rows: int) -> None:
    """Make the table. No two row versions of it will share a `version`."""
    database.run(
        "CREATE TABLE t (id bigint, version bigint, created_at timestamptz, updated_at timestamptz)",
        "INSERT INTO t SELECT n, n, timestamptz '2020-01-01' + n * interval '1 s', timestamptz '2020-01-01' "
        f"FROM generate_series(1, {rows}) n",
        "ALTER TABLE t ADD PRIMARY KEY (id)",
        "CREATE INDEX ON t (created_at)",
        "CREATE INDEX ON t (updated_at)",
        f"CREATE SEQUENCE key START {rows + 1}",
        f"CREATE SEQUENCE version START {rows + 1}",
        "VACUUM ANALYZE t",
    )


class Flood:
    """Writers that never rest, a tick every second, and workers that are killed while they read a chunk.

    Args:
        stack: the stack.
        rows: how many the table has at first.
        seed: of every choice.
    """

    def __init__(self, stack: Stack, rows: int, seed: int) -> None:
        self._stack = stack
        self._rows = rows
        self._seed = seed
        self._over = threading.Event()
        self._acting: list[Future[None]] = []
        self.counts: Counter[str] = Counter()
        """What was done, and how often."""

    @property
    def killed(self) -> int:
        """How many workers have died of a chunk."""
        return sum(invocation.kind == "exit" for invocation in self._readings())

    @contextmanager
    def rising(self, *, kills: int) -> Iterator[None]:
        """Have all of it at once until the end of the block, and so many workers killed meanwhile."""
        with ThreadPoolExecutor(WRITERS + 2) as pool:
            self._acting = [pool.submit(self._write, number) for number in range(WRITERS)]
            self._acting += [pool.submit(self._tick), pool.submit(self._kill, kills)]
            try:
                yield
            finally:
                self._over.set()
        for each in self._acting:
            each.result()

    def wait(self, condition: Callable[[], object], seconds: float) -> None:
        """Wait until something is true, for some seconds at most, or one of those who act has failed."""
        give_up = time.monotonic() + seconds
        while not condition():
            for each in self._acting:
                if each.done():
                    each.result()
            assert time.monotonic() < give_up, self.counts
            time.sleep(0.1)

    def _write(self, number: int) -> None:
        draw = random.Random(f"{self._seed} writer {number}")  # noqa: S311 - not for secrets
        with self._stack.tide.database.session() as session:
            while not self._over.is_set():
                with suppress(DatabaseError):  # a deadlock
                    self._transaction(session, draw)
                    continue
                session.run("ROLLBACK")
                self.counts["deadlock"] += 1

    def _transaction(self, session: Any, draw: random.Random) -> None:
        session.run("BEGIN")
        for _ in range(draw.randrange(1, 4)):
            session.run(self._statement(draw))
            self._over.wait(draw.choice([0, 0.002, 0.02]))
        if draw.random() < 0.05:
            self._over.wait(1)
            self.counts["long"] += 1
        session.run("ROLLBACK" if draw.random() < 0.1 else "COMMIT")
        self.counts["transaction"] += 1

    def _statement(self, draw: random.Random) -> str:
        first = draw.randrange(HOT if draw.random() < 0.3 else self._rows)
        rows = f"id BETWEEN {first} AND {first + draw.randrange(6)}"
        new = "nextval('version'), now(), now()"
        return draw.choice(
            [
                f"INSERT INTO t SELECT nextval('key'), {new} FROM generate_series(1, 3)",
                f"UPDATE t SET version = nextval('version'), updated_at = now() WHERE {rows}",
                f"DELETE FROM t WHERE {rows}",
                f"WITH gone AS (DELETE FROM t WHERE {rows} RETURNING id) INSERT INTO t SELECT id, {new} FROM gone",
            ]
        )

    def _tick(self) -> None:
        while not self._over.is_set():
            assert self._stack.tick().succeeded
            self.counts["tick"] += 1
            self._over.wait(1)

    def _kill(self, kills: int) -> None:
        """Kill workers, spread over the first two thirds of the chunks."""
        draw = random.Random(f"{self._seed} killer")  # noqa: S311 - not for secrets
        while not (plans := self._stack.tide.state().plans):
            if self._over.wait(0.1):
                return
        moments = sorted(draw.uniform(0, plans[0].chunks * 2 / 3) for _ in range(kills))
        worker = self._stack.sandbox.functions[self._stack.worker]
        with self._stack.tide.database.session() as session:
            for number, moment in enumerate(moments):
                while not self._over.is_set() and self.killed <= number:
                    if len(self._readings()) >= moment and session.run(_IS_READ) != [[0]]:
                        self._over.wait(draw.uniform(0, 0.02))  # it may be about to commit by then, or to publish
                        self.counts["kill"] += worker.kill(_is_chunk)
                    self._over.wait(0.005)

    def _readings(self) -> list[Invocation]:
        return [each for each in list(self._stack.invocations) if each.record and _is_chunk(each.payload)]


def _is_chunk(payload: Any) -> bool:
    return any('"plan"' in record["body"] for record in payload["Records"])


class Bodies(Mapping[str, list[bytes]]):
    """The lines of segments, one segment in memory at a time."""

    def __init__(self, keys: list[str], read: Callable[[str], bytes]) -> None:
        self._keys = keys
        self._read = read

    def __getitem__(self, key: str) -> list[bytes]:
        """Read a segment."""
        return self._read(key).split(b"\n")[:-1]

    def __iter__(self) -> Iterator[str]:
        """Go through the keys, in the order of the segments' positions."""
        return iter(self._keys)

    def __len__(self) -> int:
        """Count the segments."""
        return len(self._keys)


class LargeTide(Tide):
    """A lake that is read a segment at a time."""

    def segments(self, table: str = TABLE) -> Bodies:
        """Return the published segments of a table, in the order of their positions."""
        keys = self.lake.keys(f"data/{TableName.parse(table).path}/")
        return Bodies(sorted(keys, key=lambda key: read_segment_key(key)[1]), self.body)

    def body(self, key: str) -> bytes:
        """Return a segment's lines."""
        return gzip.decompress(self.lake.body(key))

    def newest(self) -> array[int]:
        """Return by id the version in the segment of the highest position; no version may be there twice."""
        ids, versions = (self.database.one(f"SELECT last_value FROM {name}") for name in ("key", "version"))
        newest, seen = array("q", bytes(8 * (ids + 1))), bytearray(versions + 1)
        for key in self.segments():
            body, rows = self.body(key), 0
            for rows, found in enumerate(_ROW.finditer(body), 1):  # noqa: B007 - how many
                version = int(found[2])
                assert not seen[version], f"version {version} is twice there, in {key} for one"
                seen[version] = 1
                newest[int(found[1])] = version
            assert rows == body.count(b"\n"), key
        return newest

    def written(self) -> int:
        """Return how many row versions were committed."""
        return sum(event.segment.rows for event in self.events() if event.segment)

    def differing(self) -> list[tuple[int, int, int]]:
        """Return the first rows of the table whose newest version is another in the lake: id, there, here."""
        newest, differing = self.newest(), list[tuple[int, int, int]]()
        for first in range(0, len(newest), _BLOCK):
            last = min(first + _BLOCK, len(newest)) - 1
            text = self.database.one(
                "SELECT string_agg(coalesce(version, 0)::text, ',' ORDER BY n) "
                f"FROM generate_series({first}, {last}) n LEFT JOIN t ON t.id = n AND t.id BETWEEN {first} AND {last}"
            )
            table = map(int, text.split(","))
            pairs = enumerate(zip(table, newest[first : last + 1], strict=True), first)
            differing += [(number, there, here) for number, (there, here) in pairs if there and there != here]
        return differing[:10]
