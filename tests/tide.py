"""A database, a lake and the worker between them, in objects that read well in a test."""

from __future__ import annotations

import gzip
import hashlib
import json
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pg8000.native
from msgspec.structs import replace

from tidelog import messages
from tidelog.chunking import Chunking
from tidelog.configurations import Configurations
from tidelog.connection import ClosingConnection
from tidelog.credentials import Credentials
from tidelog.events import Event, Ingested, Remade, Supplied
from tidelog.folding import follows
from tidelog.glancing import Glances
from tidelog.ingesting import Ingestion
from tidelog.lake import read_segment_key
from tidelog.ledger import Ledger
from tidelog.letters import Received
from tidelog.limits import Limits
from tidelog.messages import Message, ReadChunk, decode, encode
from tidelog.parameters import Parameters, Summary, summarize
from tidelog.parts import Parts
from tidelog.plans import ChunkRead
from tidelog.queues import WorkQueue
from tidelog.readings import undelta
from tidelog.runs import Run
from tidelog.segment import Segments
from tidelog.source import Source
from tidelog.state import State
from tidelog.stores import Bucket, Store
from tidelog.tables import TableName
from tidelog.verification.verdict import Verified
from tidelog.verification.verifying import Verifying
from tidelog.working import Jobs

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_ssm import SSMClient

Row = dict[str, Any]
LIMITS = Limits(look_back=900, time_bound_bytes=2**30, chunk_bytes=2**30, failover_margin=3600, fresh=450)
SECONDS = 60
LOCK_SECONDS = 10


@dataclass(frozen=True)
class Server:
    """Where a PostgreSQL server listens, and its superuser's password."""

    port: int
    password: str

    def credentials(self, database: str, user: str = "postgres") -> Credentials:
        """Return who connects to what; every role of the tests has the superuser's password."""
        return Credentials("127.0.0.1", user, self.password, database, self.port)


def connect(to: Credentials) -> pg8000.native.Connection:
    """Connect as any program does."""
    return ClosingConnection(to.username, to.host, to.dbname, to.port, to.password, ssl_context=False)


def wait_for(condition: Callable[[], object]) -> None:
    """Wait until something is true, for as long as a slow machine may take."""
    give_up = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < give_up
        time.sleep(0.01)


class Database:
    """A database of one test, and a connection of its superuser."""

    def __init__(self, server: Server, name: str) -> None:
        self.server = server
        self.name = name
        self._sources: list[Source] = []
        self.reconnect()

    def reconnect(self) -> None:
        """Connect, at first or after the server was started again."""
        self._connection = connect(self.server.credentials(self.name))

    def run(self, *statements: str) -> Any:
        """Run SQL, each statement in a transaction of its own; return the rows of the last."""
        for statement in statements:
            rows = self._connection.run(statement)
        return rows

    def one(self, question: str) -> Any:
        """Return the one value that a question has for an answer."""
        [[value]] = self._connection.run(question)
        return value

    def column(self, question: str) -> list[Any]:
        """Return the first column of an answer."""
        return [row[0] for row in self._connection.run(question)]

    def pass_horizon(self) -> None:
        """Wait until all transactions that are under way now have ended: other tests' may be among them."""
        now = self.one("SELECT pg_current_xact_id()::text::bigint")
        self._wait_for_horizon(now + 1)

    def hold_horizon(self, session: pg8000.native.Connection) -> None:
        """Begin a transaction that holds the horizon, and wait until none of other tests holds it further back."""
        session.run("BEGIN")
        [[oldest]] = session.run("SELECT pg_current_xact_id()::text::bigint")
        self._wait_for_horizon(oldest)

    def _wait_for_horizon(self, transaction: int) -> None:
        wait_for(lambda: self.one("SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint") >= transaction)

    @contextmanager
    def session(self, user: str = "postgres") -> Iterator[pg8000.native.Connection]:
        """Lend another connection; what is open at its end is rolled back."""
        connection = connect(self.server.credentials(self.name, user))
        try:
            yield connection
        finally:
            connection.close()

    def source(self, user: str = "postgres", *, lock_seconds: float = LOCK_SECONDS, **more: Any) -> Source:
        """Return the database as a worker of some role sees it."""
        source = Source(lambda: self.server.credentials(self.name, user), "disable", lock_seconds=lock_seconds, **more)
        self._sources.append(source)
        return source

    def close(self) -> None:
        """End every connection."""
        for source in self._sources:
            source.close()
        self._connection.close()


@dataclass(frozen=True)
class Lake:
    """A bucket and a prefix of parameters of one test."""

    s3: S3Client
    ssm: SSMClient
    bucket: str
    prefix: str

    def keys(self, prefix: str = "") -> list[str]:
        """List the objects."""
        pages = self.s3.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=prefix)
        return [found["Key"] for page in pages for found in page.get("Contents", [])]

    def body(self, key: str) -> bytes:
        """Return an object."""
        return self.s3.get_object(Bucket=self.bucket, Key=key)["Body"].read()

    def empty(self) -> None:
        """Delete every object."""
        keys = self.keys()
        for key in keys:
            self.s3.delete_object(Bucket=self.bucket, Key=key)

    def uploads(self) -> list[str]:
        """List the keys of multipart uploads that are neither completed nor aborted."""
        return [upload["Key"] for upload in self.s3.list_multipart_uploads(Bucket=self.bucket).get("Uploads", [])]

    def expire_uploads(self) -> int:
        """Abort every upload, as the bucket's lifecycle does after some days; return how many there were."""
        uploads = self.s3.list_multipart_uploads(Bucket=self.bucket).get("Uploads", [])
        for upload in uploads:
            self.s3.abort_multipart_upload(Bucket=self.bucket, Key=upload["Key"], UploadId=upload["UploadId"])
        return len(uploads)


class Outbox(WorkQueue):
    """A queue of which a test takes the messages itself."""

    def __init__(self) -> None:
        self.messages: list[Message] = []

    def send(self, messages: Sequence[Message], *, salt: str = "") -> None:  # noqa: ARG002 - the real one's
        """Keep messages."""
        self.messages += [decode(encode(message)) for message in messages]

    def take(self) -> list[Message]:
        """Take what was sent since it was last taken."""
        taken, self.messages = self.messages, []
        return taken


class Tide:
    """A worker's parts over a database and a lake, and what came of its runs."""

    def __init__(self, database: Database, lake: Lake) -> None:
        self.database = database
        self.lake = lake
        self.now: Callable[[], datetime] = lambda: datetime.now(UTC)
        self.configurations = Configurations(lake.ssm, lake.prefix)
        self.source = database.source(settings=self.configurations.table)
        self.ledger = self._ledger(lake.s3)
        self.parameters = Parameters(lake.ssm, lake.prefix)
        self.outbox = Outbox()
        self.glances = Glances()

    def configure(self, document: str) -> int:
        """Write the configuration, and put it in force; return its version."""
        self.configurations.write(document)
        return self.configurations.follow().version

    def run(self, *statements: str) -> Any:
        """Run SQL as the superuser."""
        return self.database.run(*statements)

    def parts(
        self,
        *,
        source: Source | None = None,
        s3: S3Client | None = None,
        ssm: SSMClient | None = None,
        limits: Limits = LIMITS,
    ) -> Parts:
        """Return what a worker works with; each of its parts may be another."""
        s3 = s3 or self.lake.s3
        return Parts(
            source=source or self.source,
            configurations=self.configurations,
            segments=Segments(s3, self.lake.bucket),
            ledger=self._ledger(s3),
            parameters=Parameters(ssm or self.lake.ssm, self.lake.prefix),
            backfill_queue=self.outbox,
            limits=limits,
            glances=self.glances,
            now=self.now,
        )

    def ingestion(self, **parts: Any) -> Ingestion:
        """Return a worker; each of its parts may be another."""
        return Ingestion(self.parts(**parts))

    def jobs(self, **parts: Any) -> Jobs:
        """Return what a worker does."""
        return Jobs(self.parts(**parts))

    def ingest(self, table: str = "public.t", *, calm: datetime | None = None, **parts: Any) -> Run:
        """Run a table once."""
        return self.ingestion(**parts).ingest(TableName.parse(table), seconds=SECONDS, calm=calm)

    def sweep(self, table: str = "public.t", *, request: str = "", **parts: Any) -> Run:
        """Have a table swept, up to its messages."""
        received = Received("m", "r", "", "q", "g", 1, "2026-11-23T12:00:00+00:00")
        wanted = messages.sweep(TableName.parse(table), request=request)
        return self.jobs(**parts).do(wanted, received, seconds=SECONDS)

    def read_chunks(self, messages: Sequence[Message] | None = None, **parts: Any) -> list[Run]:
        """Read the chunks of some messages, or of all that were sent, and of those that these send in turn."""
        chunking, runs = Chunking(self.parts(**parts)), []
        waiting = list(self.outbox.take() if messages is None else messages)
        while waiting:
            message = waiting.pop(0)
            assert isinstance(message, ReadChunk)
            runs.append(chunking.read(message.table_name, message.plan, message.chunk, seconds=SECONDS))
            waiting += self.outbox.take()
        return runs

    def events(self, table: str = "public.t") -> list[Event]:
        """Return the ledger of a table."""
        return list(self.ledger.events(TableName.parse(table)))

    def kinds(self, table: str = "public.t") -> list[str]:
        """Return what the events of a table are called."""
        return [type(event.what).__struct_config__.tag for event in self.events(table)]  # type: ignore[misc] # a str

    def state(self, table: str = "public.t") -> State:
        """Return the state of a table."""
        head = self.ledger.head(TableName.parse(table))
        return head.state if head else State()

    def segments(self, table: str = "public.t") -> Mapping[str, list[bytes]]:
        """Return the published segments of a table, in the order of their positions: key to lines."""
        keys = self.lake.keys(f"data/{TableName.parse(table).path}/")
        bodies = {
            key: gzip.decompress(self.lake.body(key)) for key in sorted(keys, key=lambda key: read_segment_key(key)[1])
        }
        assert all(body.endswith(b"\n") for body in bodies.values() if body)
        return {key: body.split(b"\n")[:-1] for key, body in bodies.items()}

    def lines(self, table: str = "public.t") -> list[bytes]:
        """Return every line of a table, in the order of the segments' positions."""
        return [line for lines in self.segments(table).values() for line in lines]

    def rows(self, table: str = "public.t") -> list[Row]:
        """Return every line of a table, read."""
        return [json.loads(line) for line in self.lines(table)]

    def values(self, column: str, table: str = "public.t") -> list[Any]:
        """Return a column of every line of a table, sorted: nothing lost and nothing twice is seen at a glance."""
        return sorted(row[column] for row in self.rows(table))

    def latest(self, table: str = "public.t", key: str = "id") -> dict[Any, Row]:
        """Return of every key the row in the segment of the highest position."""
        return {row[key]: row for row in self.rows(table)}

    def table(self, table: str = "public.t", key: str = "id") -> dict[Any, Row]:
        """Return the table as it is in the database."""
        found = self.database.column(f"SELECT row_to_json(r)::text FROM {TableName.parse(table).sql} r")
        return {row[key]: row for row in map(json.loads, found)}

    def tables(self) -> list[str]:
        """Return every table that has a ledger."""
        return list(map(str, self.ledger.tables()))

    def verify(
        self,
        table: str = "public.t",
        *,
        store: Store | None = None,
        summary: Callable[[], Summary | None] | None = None,
        user: str = "postgres",
        **more: Any,
    ) -> Verified:
        """Verify a table as some role, here or as a copy of the lake has it."""
        name = TableName.parse(table)
        credentials = self.database.server.credentials(self.database.name, user)
        with tempfile.TemporaryDirectory() as work:
            lake = store or Bucket(self.lake.s3, self.lake.bucket)
            verifying = Verifying(lake, lambda: credentials, "disable", **{"work": Path(work), **more})
            with closing(verifying):
                return verifying.verify(name, summary or (lambda: self.parameters.read(name)))

    def check(self, table: str = "public.t") -> None:
        """Hold a ledger, a lake and a parameter against each other: what always is true when no run is under way."""
        events = self.events(table)
        assert [event.offset for event in events] == list(range(1, len(events) + 1))
        state = State()
        for event in events:
            assert follows(state, event)
            state = event.state
            assert all(xid >= state.horizon for xid in undelta(state.ahead))
        ids = [event.what.sequential_id for event in events if isinstance(event.what, Ingested | Supplied)]
        assert ids == list(range(1, len(ids) + 1))
        committed = {event.segment.key: event.segment for event in events if event.segment}
        keys = [event.segment.key for event in events if event.segment and not isinstance(event.what, Remade)]
        assert len(keys) == len(set(keys))
        chunks = [event.segment.key for event in events if isinstance(event.what, ChunkRead) and event.segment]
        others = [key for key in keys if key not in chunks]
        assert others == sorted(others, key=lambda key: read_segment_key(key)[1])
        read = [(event.what.plan, event.what.chunk.number) for event in events if isinstance(event.what, ChunkRead)]
        assert len(read) == len(set(read))
        published = self.segments(table)
        hashed = {key: hashlib.sha256(self.lake.body(key)).hexdigest() for key in published}
        assert {key: segment.digest for key, segment in committed.items()} == hashed
        assert {key: segment.rows for key, segment in committed.items()} == {k: len(v) for k, v in published.items()}
        name = TableName.parse(table)
        assert {f"schema/{name.path}/{segment.schema}.json" for segment in committed.values()} <= set(
            self.lake.keys("schema/")
        )
        # The summary may lag behind, but not behind a segment.
        summary = self.parameters.read(name)
        known = summary.offset if summary else 0
        assert not any(event.segment for event in events[known:])
        if summary and known:
            assert summary == replace(
                summarize(events[known - 1].state, self.now()), checked_at=summary.checked_at, tally=summary.tally
            )
        else:
            assert summary is None or summary.is_blank

    def _ledger(self, s3: S3Client) -> Ledger:
        return Ledger(s3, self.lake.bucket, now=lambda: self.now(), new_id=lambda: uuid.uuid4().hex)  # noqa: PLW0108 - the clock may be set later
