"""A database, its writers, whoever alters it, tidelog and what befalls them all, as steps in any order."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pg8000.native
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from msgspec.structs import replace
from pg8000.exceptions import DatabaseError, InterfaceError

from tests.conftest import Aws, make_lake
from tests.faults import STEPS, KilledError, Process
from tests.integration.repacking import Repacking
from tests.ticking import Ticking
from tests.tide import SECONDS, Database, Server, Tide, connect, wait_for
from tidelog.chunking import Chunking
from tidelog.errors import DatabaseBusy, NotIngestible, Retryable, UnknownTable
from tidelog.events import Event, PartitionsChanged, Remade, SchemaChanged, TimelineStarted
from tidelog.letters import Received
from tidelog.limits import Limits
from tidelog.messages import Message, ReadChunk, Sweep, decode
from tidelog.plans import ChunkRead, ChunksDropped, Planned
from tidelog.selection import Selection
from tidelog.tables import TableName
from tidelog_sandbox.postgres import Postgres

LIMITS = Limits(look_back=0.05, time_bound_bytes=1, chunk_bytes=6 * 8192, failover_margin=0, fresh=450)
WHOLE = replace(LIMITS, chunk_bytes=2**40)
TABLES = ("public.flat", "public.parted")
RELATIONS = ("flat", "parted0", "parted1", "parted2")
"""Those that hold rows; a table's name begins theirs."""
COLUMNS = (
    "id int, version bigint DEFAULT nextval('version'), part int, v text, m mood, created_at {time}, updated_at {time}"
)
SCHEMA = (
    "CREATE SEQUENCE version",
    "CREATE TYPE mood AS ENUM ('well', 'ill')",
    f"CREATE TABLE flat ({COLUMNS.format(time='timestamptz')}, PRIMARY KEY (id))",
    f"CREATE TABLE parted ({COLUMNS.format(time='timestamp')}) PARTITION BY LIST (part)",
    *(f"CREATE TABLE parted{n} PARTITION OF parted FOR VALUES IN ({n})" for n in range(3)),
    *(f"CREATE INDEX ON {table} ({column})" for table in TABLES for column in ("created_at", "updated_at")),
)
STAMPS = st.sampled_from(
    [
        "clock_timestamp()",
        "clock_timestamp()",
        "now()",
        "NULL",
        "now() - interval '9 days'",
        "clock_timestamp() + interval '1 s'",
        "'infinity'",
    ]
)
ALTERATIONS = (
    "ALTER TABLE {table} ADD extra{n} int",
    "ALTER TABLE {table} ADD extra{n} text DEFAULT 'given'",
    "ALTER TABLE {table} ADD extra{n} int GENERATED ALWAYS AS (id + {n}) VIRTUAL",
    "ALTER TABLE {table} ADD extra{n} text DEFAULT gen_random_uuid()::text",
    "ALTER TABLE {table} RENAME v TO w",
    "ALTER TABLE {table} RENAME w TO v",
    "ALTER TABLE {table} ALTER part TYPE bigint",
    "ALTER TABLE {table} ALTER created_at TYPE timestamp USING created_at",
    "ALTER TABLE {table} ALTER version SET DEFAULT nextval('version')",
    "ALTER TABLE {table} DROP COLUMN IF EXISTS extra{n}",
    "ALTER TYPE mood ADD VALUE IF NOT EXISTS 'so-so{n}'",
    "ALTER TYPE mood RENAME VALUE 'ill' TO 'sick'",
    "ALTER TYPE mood RENAME VALUE 'sick' TO 'ill'",
    "VACUUM FULL {table}",
    "VACUUM (FREEZE) {table}",
    "TRUNCATE {table}",
    "DROP INDEX IF EXISTS flat_updated_at_idx",
    "CREATE INDEX IF NOT EXISTS flat_updated_at_idx ON flat (updated_at)",
    "ALTER TABLE parted DETACH PARTITION parted{n}",
    "ALTER TABLE parted ATTACH PARTITION parted{n} FOR VALUES IN ({n})",
    (
        "BEGIN; CREATE TABLE copied (LIKE flat INCLUDING ALL); INSERT INTO copied SELECT * FROM flat; "
        "ALTER TABLE flat RENAME TO gone; ALTER TABLE copied RENAME TO flat; DROP TABLE gone; COMMIT"
    ),
)
WAIT_BRIEFLY = "SET lock_timeout = '20ms'"
"""For whoever holds a table: nobody else is there to let it go."""
WITHIN = tuple(each for each in ALTERATIONS if not each.startswith(("VACUUM", "BEGIN")))
"""What a transaction may do among other things."""
REWRITE = (" TYPE bigint", " TYPE timestamp", "gen_random_uuid")
"""What writes every row anew, as far as PostgreSQL is concerned."""
DEATHS = st.none() | st.tuples(st.sampled_from(["before", "after"]), st.sampled_from(STEPS))
DOWN = (DatabaseError, InterfaceError, OSError)


class Machine(RuleBasedStateMachine):
    """The steps.

    Args:
        postgres: a server that nobody else uses.
        aws: the clients.
    """

    def __init__(self, postgres: Postgres, aws: Aws) -> None:
        super().__init__()
        self._postgres = postgres
        server = Server(postgres.port, postgres.password)
        self._admin = server.credentials("postgres")
        self._name = f"machine_{random.getrandbits(60)}"
        self._administer(f"CREATE DATABASE {self._name} TEMPLATE template0")
        self.tide = Tide(Database(server, self._name), make_lake(aws.s3, aws.ssm))
        self.tide.source = self.tide.database.source(lock_seconds=0.05, settings=self.tide.configurations.table)
        self._sessions: dict[int, pg8000.native.Connection] = {}
        self._open: set[int] = set()
        self._uncounted: set[int] = set()
        self._waiting: list[Message] = []
        self._rewrites: list[tuple[str, int]] = []
        self._repacking: tuple[str, Repacking] | None = None
        self._copied = False
        self.ticking = Ticking(self.tide, selection=Selection(TABLES))
        self.tide.run(*SCHEMA, WAIT_BRIEFLY)

    @initialize(rows=st.integers(0, 40))
    def begin(self, rows: int) -> None:
        """There are rows before the first tick."""
        for table in TABLES:
            self._insert(self.tide.database, table, rows, "now() - interval '1 day'")

    @rule(number=st.integers(0, 2), table=st.sampled_from(TABLES), stamp=STAMPS, kind=st.integers(0, 3), data=st.data())
    def write(self, number: int, table: str, stamp: str, kind: int, data: st.DataObject) -> None:
        """A session writes, in the transaction that it has open or begins."""
        some = f"id IN (SELECT id FROM {table} ORDER BY md5(id::text || '{data.draw(st.integers(0, 99))}') LIMIT 3)"
        with self._writing(number) as session:
            match kind:
                case 0:
                    self._insert(session, table, data.draw(st.integers(1, 4)), stamp)
                case 1:
                    session.run(f"UPDATE {table} SET version = nextval('version'), updated_at = {stamp} WHERE {some}")
                case 2:
                    session.run(f"UPDATE {table} SET version = nextval('version') WHERE {some}")
                case _:
                    session.run(f"DELETE FROM {table} WHERE {some}")

    @rule(number=st.integers(0, 2), back=st.booleans())
    def save(self, number: int, *, back: bool) -> None:
        """A session writes below a savepoint, and keeps that or does not."""
        with self._writing(number) as session:
            session.run("SAVEPOINT s")
            self._insert(session, TABLES[number % 2], 1, "clock_timestamp()")
            session.run("ROLLBACK TO s" if back else "RELEASE s")

    @rule(number=st.integers(0, 2), how=st.sampled_from(["COMMIT", "COMMIT", "COMMIT", "ROLLBACK"]), lazy=st.booleans())
    def end(self, number: int, how: str, *, lazy: bool) -> None:
        """A session ends its transaction, and may not wait for the log."""
        with self._writing(number, begin=False) as session:
            session.run(f"SET LOCAL synchronous_commit = {'off' if lazy else 'on'}")
            session.run(how)
            self._open.discard(number)
            self._uncounted.add(number)

    @rule(table=st.sampled_from(TABLES))
    def load(self, table: str) -> None:
        """Many rows at once: more than one run reads."""
        with suppress(*DOWN):
            self._insert(self.tide.database, table, 80, "now()")

    @rule(table=st.sampled_from(TABLES), statement=st.sampled_from(ALTERATIONS), n=st.integers(0, 2))
    def alter(self, table: str, statement: str, n: int) -> None:
        """The table is altered, unless a session holds it."""
        with suppress(DatabaseError):
            try:
                self.tide.run(statement.format(table=table, n=n))
            except DatabaseError:
                self.tide.run("ROLLBACK")
                raise
            self._note(table, statement)

    @rule(
        number=st.integers(0, 2),
        table=st.sampled_from(TABLES),
        statement=st.sampled_from(WITHIN),
        n=st.integers(0, 2),
        back=st.booleans(),
    )
    def alter_within(self, number: int, table: str, statement: str, n: int, *, back: bool) -> None:
        """A session alters a table in its transaction and holds it from then on, or goes back to before it did."""
        with self._writing(number) as session:
            session.run("SAVEPOINT altering")
            session.run(statement.format(table=table, n=n))
            self._insert(session, table, 1, "clock_timestamp()")
            if back:
                session.run("ROLLBACK TO altering")
            self._note(table, statement)

    @rule(relation=st.sampled_from(RELATIONS), last=st.booleans())
    def repack(self, relation: str, *, last: bool) -> None:
        """A relation begins to be repacked, as is advised behind a sweep; or goes on with it, or comes to its end."""
        with suppress(*DOWN):
            if not self._repacking:
                table = next(table for table in TABLES if f"public.{relation}".startswith(table))
                self._work(Sweep(version=1, type="sweep", table=table), None)
                waiting, self._waiting = self._waiting, []
                for message in waiting:
                    self._work(message, None)
                if not (state := self.tide.state(table)).unswept and not state.plans:
                    self._repacking = table, Repacking(self.tide.database.server.credentials(self._name), relation)
                    self._copied = False
            elif not self._copied:
                self._repacking[1].copied()
                self._copied = True
            elif last:
                self._exchange()
            else:
                self._repacking[1].catch_up()

    @rule(
        table=st.sampled_from(TABLES),
        dies=DEATHS,
    )
    def tick(self, table: str, dies: tuple[str, Any] | None) -> None:
        """A table's run, by a worker that may be killed."""
        self._work(decode(f'{{"version":1,"type":"ingest","table":"{table}"}}'), dies)

    @rule(dies=DEATHS)
    def schedule(self, dies: tuple[str, Any] | None) -> None:
        """A tick of the schedule, which leaves out what has not changed; the first of its workers may be killed."""
        for message in self.ticking.tick():
            self._work(message, dies)
            dies = None

    @rule()
    def lose(self) -> None:
        """A tick of which no message is ever worked off."""
        self.ticking.tick()

    @rule(how=st.sampled_from(["pg_stat_reset()", "pg_stat_force_next_flush()", "pg_stat_reset_shared('archiver')"]))
    def count(self, how: str) -> None:
        """Statistics begin anew, or are written down now and not later."""
        with suppress(*DOWN):
            self.tide.run(f"SELECT {how}")

    @rule()
    def prove(self) -> None:
        """Once all that has ended is counted, there is nothing new in what a tick leaves out.

        A session in a transaction keeps to itself what it has counted before, until that has ended.
        """
        for number in self._sessions.keys() - self._open:
            with suppress(*DOWN):
                self._sessions[number].run("SELECT pg_stat_force_next_flush()")
                self._uncounted.discard(number)
        if self._uncounted:
            return
        for message in self._prove():
            self._work(message, None)

    @rule(
        table=st.sampled_from(TABLES),
        dies=DEATHS,
    )
    def sweep(self, table: str, dies: tuple[str, Any] | None) -> None:
        """A table's sweep."""
        self._work(Sweep(version=1, type="sweep", table=table), dies)

    @rule(table=st.sampled_from(TABLES), some=st.booleans())
    def backfill(self, table: str, *, some: bool) -> None:
        """Rows are read again."""
        self._work(self._backfill(table, '"from":"2020-01-01","to":"2100-01-01"' if some else '"all":true'), None)

    @rule(data=st.data(), dies=DEATHS)
    def read_chunk(self, data: st.DataObject, dies: tuple[str, Any] | None) -> None:
        """One of the chunks that wait, whichever."""
        if self._waiting:
            self._work(self._waiting.pop(data.draw(st.integers(0, len(self._waiting) - 1))), dies)

    @rule(chance=st.integers(0, 3), how=st.sampled_from(["immediate", "immediate", "fast"]))
    def restart(self, chance: int, how: Any) -> None:
        """The server crashes, or is stopped; what nobody has waited for may be gone."""
        if not chance:
            self._close()
            self.tide.database.close()
            self._postgres.restart(how)
            self.tide.database.reconnect()
            self.tide.run(WAIT_BRIEFLY)

    @rule()
    def expire(self) -> None:
        """Uploads that are not completed are lost."""
        self.tide.lake.expire_uploads()

    @rule(table=st.sampled_from(TABLES))
    def forget(self, table: str) -> None:
        """A parameter is lost."""
        name = f"{self.tide.lake.prefix}/tables/{table.replace('.', '/')}"
        self.tide.lake.ssm.delete_parameters(Names=[name])

    @invariant()
    def the_summary_is_never_ahead(self) -> None:
        """Of the ledger."""
        for table in TABLES:
            summary = self.tide.parameters.read(TableName.parse(table))
            assert (summary.offset if summary else 0) <= self.tide.state(table).offset

    def teardown(self) -> None:
        """Everybody comes to an end; what was begun is finished, a sweep completes the tables, and all is compared."""
        try:
            for number in self._open:
                with suppress(*DOWN):
                    self._sessions[number].run("COMMIT")
            if self._copied:
                with suppress(*DOWN):
                    self._exchange()
            self._close()
            for n in range(3):
                for statement in (
                    f"ALTER TABLE parted ATTACH PARTITION parted{n}",
                    f"CREATE TABLE p{n} PARTITION OF parted",
                ):
                    with suppress(DatabaseError):  # It is there, or was altered otherwise than the table.
                        self.tide.run(f"{statement} FOR VALUES IN ({n})")
            self._come_to_rest()
            for table in TABLES:
                self._settle(table)
                self._compare(table)
        finally:
            self.tide.database.close()
            self._administer(f"DROP DATABASE {self._name} WITH (FORCE)")

    def _exchange(self) -> None:
        """End what is being repacked."""
        if self._repacking:
            table, repacking = self._repacking
            repacking.exchange()
            self._repacking = None
            self._rewrites.append((table, self.tide.state(table).offset))

    def _give_up_repacking(self) -> None:
        if self._repacking:
            self._repacking[1].give_up()
            self._repacking = None

    def _close(self) -> None:
        """End the sessions."""
        self._give_up_repacking()
        for session in self._sessions.values():
            with suppress(*DOWN):
                session.close()
        self._sessions.clear()
        self._open.clear()
        self._uncounted.clear()

    def _come_to_rest(self) -> None:
        """Nothing changes any more: after a few ticks none sends a message, and nothing is left unread."""
        others = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        self.tide.source.close()
        wait_for(lambda: not self.tide.database.one(others))
        for _ in range(9):
            waiting, self._waiting = self._waiting, []
            if not (messages := self._prove()) and not waiting:
                return
            for message in [*waiting, *messages]:
                self._work(message, None)
        raise AssertionError("ticks find no rest")

    def _prove(self) -> list[Message]:
        """Run a tick after all is counted; of the tables that it leaves out nothing is new. Return its messages."""
        self.tide.run("SELECT pg_stat_force_next_flush()")
        messages = self.ticking.tick()
        for table in set(TABLES) - {message.table for message in messages}:
            before = self.tide.state(table)
            try:
                run = self.tide.ingest(table, limits=LIMITS)
            except DatabaseBusy:
                continue  # A session has altered it, and holds it.
            # What bounds in time hide is the sweeps'; without an index it is found before.
            shown = before.unswept and run.strategy != before.strategy
            assert run.outcome == "unchanged" or shown, (table, run, before)
        return list(messages)

    def _settle(self, table: str) -> None:
        """Read all that is there."""
        for _ in range(2):
            self.tide.ingest(table, limits=WHOLE)
            for plan in self.tide.state(table).plans:
                self.tide.read_chunks([self._chunk(table, plan.number, n) for n in plan.pending], limits=LIMITS)
            self.tide.sweep(table, limits=WHOLE)
            self.tide.read_chunks(limits=LIMITS)
        # No alteration is about this column, so whatever it has outdated, each version is there.
        latest = self.tide.latest(table)
        for key, row in self.tide.table(table).items():
            assert key in latest, (table, row, self.tide.kinds(table))
            assert latest[key]["version"] == row["version"], (table, row, latest[key], self.tide.kinds(table))
        if any(isinstance(event.what, SchemaChanged) and event.what.remedy for event in self.tide.events(table)):
            self._work(self._backfill(table, '"all":true'), None)  # As the event says.
            self.tide.read_chunks([each for each in self._waiting if each.table == table], limits=LIMITS)
        assert not self.tide.state(table).plans

    def _compare(self, table: str) -> None:
        """Hold the lake against the table."""
        self.tide.lake.expire_uploads()
        self.tide.check(table)
        verified = self.tide.verify(table)
        wrong = (verified.findings, verified.differing, verified.reason)
        assert wrong == ((), 0, ""), verified
        latest = self.tide.latest(table)
        for key, row in self.tide.table(table).items():
            found = {column: latest.get(key, {}).get(column) for column in row}
            assert found == row, (table, row, latest.get(key), self.tide.kinds(table))
        self._count(table)

    def _note(self, table: str, statement: str) -> None:
        """Note after which event a table was written anew."""
        if any(part in statement for part in REWRITE):
            self._rewrites.append((table, self.tide.state(table).offset))

    def _count(self, table: str) -> None:
        """Hold that no version came once more than events have announced since it came first, but for backfills."""
        events = self.tide.events(table)
        offsets: dict[str, int] = {}
        backfills = {event.offset for event in events if isinstance(event.what, Planned) and is_backfill(event.what)}
        asked_for: set[str] = set()  # A chunk of a backfill that was lost comes again, in an event of another kind.
        for event in events:
            if event.segment and isinstance(event.what, ChunkRead) and event.what.plan in backfills:
                asked_for.add(event.segment.key)
            elif event.segment and event.segment.key not in asked_for:
                offsets.setdefault(event.segment.key, event.offset)
        came: dict[tuple[int, int], list[int]] = {}
        for key, lines in self.tide.segments(table).items():
            for row in map(json.loads, lines if key in offsets else ()):
                came.setdefault((row["id"], row["version"]), []).append(offsets[key])
        announced = [event.offset for event in events if announces(event)]
        announced += [offset + 1 for name, offset in self._rewrites if name == table]
        for version, copies in came.items():
            allowed = sum(offset > min(copies) for offset in announced)
            assert len(copies) <= 1 + allowed, (table, version, sorted(copies), self.tide.kinds(table))

    def _backfill(self, table: str, what: str) -> Message:
        return decode(f'{{"version":1,"type":"backfill","table":"{table}",{what}}}')

    def _chunk(self, table: str, plan: int, number: int) -> Message:
        return ReadChunk(version=1, type="backfill", table=table, plan=plan, chunk=number)

    def _work(self, message: Message, dies: tuple[str, Any] | None) -> None:
        """Work a message off. One that fails for a while comes again; and so do chunks."""
        process = Process()
        if dies:
            process.at(*dies, process.kill)
        s3, ssm = process.client(self.tide.lake.s3), process.client(self.tide.lake.ssm)
        parts = self.tide.parts(s3=s3, ssm=ssm, limits=LIMITS)
        try:
            if isinstance(message, ReadChunk):
                Chunking(parts).read(message.table_name, message.plan, message.chunk, seconds=SECONDS)
            else:
                received = Received("m", "r", "", "q", "g", 1, "2026-11-23T12:00:00+00:00")
                self.tide.jobs(s3=s3, ssm=ssm, limits=LIMITS).do(message, received, seconds=SECONDS)
        except KilledError:
            self.tide.source.close()
            self._waiting += [message] if isinstance(message, ReadChunk) else []
        except Retryable:
            self._waiting += [message] if isinstance(message, ReadChunk) else []
        except (UnknownTable, NotIngestible):
            pass  # It is altered just now, or a backfill came before the first tick.
        self._waiting += self.tide.outbox.take()

    @contextmanager
    def _writing(self, number: int, *, begin: bool = True) -> Iterator[Any]:
        """Lend a session in a transaction; a statement that fails ends it."""
        session = self._sessions.get(number)
        if session is None:
            session = self._sessions[number] = connect(self.tide.database.server.credentials(self._name))
            session.run(WAIT_BRIEFLY)
        try:
            if begin and number not in self._open:
                session.run("BEGIN")
                self._open.add(number)
            yield session if number in self._open else Nothing()
        except DatabaseError:
            session.run("ROLLBACK")
            self._open.discard(number)

    def _insert(self, session: Any, table: str, rows: int, stamp: str) -> None:
        columns = [
            name
            for (name,) in session.run(
                f"SELECT attname::text FROM pg_attribute WHERE attrelid = '{table}'::regclass AND attname IN ('v', 'w')"
            )
        ]
        session.run(
            f"INSERT INTO {table} (id, part, {columns[0]}, m, created_at, updated_at) "
            f"SELECT nextval('version'), n % 3, repeat('x', 700), 'well', {stamp}, {stamp} "
            f"FROM generate_series(1, {rows}) n"
        )

    def _administer(self, statement: str) -> None:
        connection = connect(self._admin)
        connection.run(statement)
        connection.close()


class Nothing:
    """A session that is not asked anything."""

    def run(self, statement: str) -> None:
        """Do nothing."""


def is_backfill(plan: Planned) -> bool:
    """Say whether a plan is a backfill's, whose rows are there already."""
    return plan.kind == "backfill"


def announces(event: Event) -> bool:
    """Say whether an event announces that rows come twice, other than those of a backfill."""
    match event.what:
        case ChunksDropped() | TimelineStarted() | SchemaChanged(again=True):
            return True
        case SchemaChanged(difference=difference):
            return "come whole" in difference
        case PartitionsChanged(again=again) | Remade(lost=again):
            return bool(again)
        case Planned(kind=kind, instead=instead, lost=lost, reason=reason):
            return kind != "backfill" and bool(instead or lost or "come twice" in reason)
    return False
