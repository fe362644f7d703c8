"""The configuration in force: which version it is, and that all that is read of a table is read as it says."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable

import pytest
from msgspec.structs import replace

from tests.faults import PUBLISH, KilledError, Process, refusal
from tests.faults import Step as Call
from tests.integration.conftest import Post
from tests.integration.test_backfills import EVERYTHING, asked, backfill, requests
from tests.tide import LIMITS, SECONDS, Lake, Tide
from tidelog import timestamps
from tidelog.configuration import LARGEST, Configuration
from tidelog.configurations import Configurations
from tidelog.deadletters import DeadLetters, Failures
from tidelog.errors import AccessDenied, InvalidSetting, StoreUnreachable
from tidelog.events import SchemaChanged
from tidelog.extraction import collect_rows
from tidelog.letters import Failure, Received
from tidelog.messages import Ingest, Message, decode, encode, ingest
from tidelog.plans import Planned
from tidelog.scheduling import schedule
from tidelog.selection import Left, Selection
from tidelog.tables import TableName

NAME = TableName("public", "t")
SECRET, LATER = "canary-0f9e8d7c", "canary-later"
PRIVATE = '[tables."public.t"]\nexclude_columns = ["email", "seen_at"]\n'
BOUNDED = replace(LIMITS, time_bound_bytes=1)


def strategy(words: str) -> str:
    """Return a document that chooses the table's strategy."""
    return f'[tables."public.t"]\nstrategy = "{words}"\n'


def do(tide: Tide, message: Message) -> None:
    """Have a worker do what a message asks for."""
    received = Received("id", "receipt", "", "work.fifo", message.group, 1, "2026-11-23T12:00:00+00:00")
    tide.jobs().do(message, received, seconds=SECONDS)


@pytest.fixture
def people(tide: Tide) -> Tide:
    """A table of two chunks, each row of which holds what nobody is to see, and so does a type of its own."""
    tide.run(
        f"CREATE TYPE mood AS ENUM ('{SECRET}')",
        "CREATE TABLE t (id int PRIMARY KEY, email text, mood mood, seen_at timestamptz, updated_at timestamptz, "
        "text text)",
        f"INSERT INTO t SELECT n, '{SECRET}', '{SECRET}', now(), now(), repeat('x', 900) "
        "FROM generate_series(1, 2000) n",
    )
    tide.database.pass_horizon()
    return tide


def set_bound(tide: Tide) -> None:
    """Read the table until it has a bound in time: it is not always known since when other tests' transactions run."""
    tide.ingest()
    while tide.state().bound is None:
        tide.database.pass_horizon()
        tide.run("UPDATE t SET updated_at = now() WHERE id = 1")
        tide.ingest()


def whole_lake(tide: Tide, *folders: str) -> bytes:
    """Return all that is in the lake, or in some of its folders, and in Parameter Store but for the document itself."""
    found = [tide.lake.body(key) for folder in folders or ("",) for key in tide.lake.keys(folder)]
    pages = tide.lake.ssm.get_paginator("get_parameters_by_path").paginate(Path=f"{tide.lake.prefix}/tables")
    kept = [repr(page["Parameters"]).encode() for page in pages]
    return b"\n".join(gzip.decompress(each) if each[:2] == b"\x1f\x8b" else each for each in [*found, *kept])


def test_an_excluded_column_is_in_nothing_that_is_ever_written(people: Tide) -> None:
    """Neither by name nor by value: a plan's chunks, an increment, one made again, a backfill by date, rows in Python.

    Nor are its type's labels, nor what it says of time. Only the schema document says that it is left out.
    """
    people.configure('[tables."public.*"]\nexclude_columns = ["email", "mood", "seen_at"]\nchunk_megabytes = 1\n')
    assert people.ingest().outcome == "planned"
    assert [run.outcome for run in people.read_chunks()] == ["read"] * 2
    people.run(f"UPDATE t SET email = '{LATER}' WHERE id = 1")
    assert people.ingest().rows == 1
    process = Process()
    process.at("before", PUBLISH, process.kill)
    people.run(f"INSERT INTO t VALUES (3001, '{LATER}', NULL, 'infinity', now(), 'x')")
    with pytest.raises(KilledError):
        people.ingest(s3=process.client(people.lake.s3))
    people.lake.expire_uploads()
    people.ingest()
    assert people.kinds()[-1] == "remade"
    backfill(people, asked(**{"from": "2020-01-01", "to": "9999-01-01"}))
    people.read_chunks()
    assert len(people.rows()) == 2000 + 1 + 1 + 2001
    assert {tuple(row) for row in people.rows()} == {("id", "updated_at", "text")}
    assert {tuple(row) for row in collect_rows("public.t", None, using=people.parts())} == {
        ("id", "updated_at", "text")
    }
    assert people.state().timestamp != "infinity"
    written = whole_lake(people, "data/", "ledger/")
    assert not [word for word in (SECRET, LATER, "email", "mood", "seen_at") if word.encode() in written]
    [document] = [json.loads(people.lake.body(key)) for key in people.lake.keys("schema/")]
    assert document.pop("excluded") == ["email", "mood", "seen_at"]
    assert not [word for word in ("email", "mood", "seen_at", "well") if word in json.dumps(document)]


def test_a_column_that_is_excluded_later_is_left_out_from_then_on(people: Tide) -> None:
    """The ledger says that the columns changed; what is in the lake stays."""
    people.ingest()
    people.configure(PRIVATE)
    people.run(f"UPDATE t SET email = '{LATER}' WHERE id = 1")
    people.ingest()
    assert people.kinds() == ["snapshotted", "schema_changed", "ingested"]
    assert sorted(people.rows()[-1]) == ["id", "mood", "text", "updated_at"]
    assert LATER.encode() not in whole_lake(people)
    people.configure("")
    people.ingest()
    [*_, changed] = [event.what for event in people.events() if isinstance(event.what, SchemaChanged)]
    assert "column email is no longer excluded" in changed.difference
    assert changed.again
    assert people.latest() == people.table()


def test_what_does_not_fit_the_table_fails_before_anything_is_read(people: Tide) -> None:
    """Whoever opens it: a run, a chunk, a backfill, a request for one, a program."""
    people.ingest(limits=replace(LIMITS, chunk_bytes=2**20))
    chunks = people.outbox.take()
    people.configure('[tables."public.t"]\nexclude_columns = ["emial"]\n')
    doings: list[Callable[[], object]] = [
        people.ingest,
        lambda: people.read_chunks(chunks),
        lambda: backfill(people, asked(all=True)),
        lambda: requests(people).take(asked(all=True), EVERYTHING),
        lambda: next(collect_rows("public.t", None, using=people.parts())),
    ]
    for doing in doings:
        with pytest.raises(InvalidSetting, match=r'\[tables\."public\.t"\] exclude_columns: it has no column emial'):
            doing()
    assert people.kinds() == ["planned", "enqueued"]


def test_the_strategy_is_the_configured_one(people: Tide) -> None:
    """The event says so. Rows that a bound hides are those of the look-back that was chosen."""
    people.run("CREATE INDEX ON t (updated_at)", "ALTER TABLE t DROP seen_at")
    set_bound(people)
    told = []
    for document in (strategy("timestamp"), strategy("xmin"), ""):
        people.configure(document)
        people.run("UPDATE t SET updated_at = now() WHERE id = 1")
        people.ingest(limits=BOUNDED)
        [*_, event] = people.events()
        assert event.reading
        told.append((event.reading.strategy, event.reading.leaves[0].bounded))
    assert told == [
        ("timestamp: its configuration says so", True),
        ("xmin: its configuration says so", False),
        ("timestamp: updated_at lead an index", True),
    ]


def test_a_bound_without_an_index_is_one_too(people: Tide) -> None:
    """It hides what is older, as the operator has chosen."""
    people.configure(strategy("timestamp") + 'timestamp_columns = ["updated_at"]\nlook_back_seconds = 60\n')
    set_bound(people)
    people.run(
        "UPDATE t SET updated_at = now() WHERE id = 1",
        "UPDATE t SET updated_at = now() - interval '2 min' WHERE id = 2",
    )
    run = people.ingest()
    assert (run.rows, run.strategy) == (
        1,
        "timestamp: its configuration says so, though no index is led by updated_at",
    )


@pytest.mark.parametrize(("keys", "seconds"), [("look_back_seconds = 7200", 7200), ("", LIMITS.look_back)])
def test_the_look_back_is_the_tables_own(people: Tide, keys: str, seconds: float) -> None:
    """Else that of all tables."""
    people.configure(f'[tables."public.*"]\n{keys}\n')
    set_bound(people)
    state = people.state()
    assert state.timestamp
    assert state.began
    assert state.bound == timestamps.before(min(state.timestamp, state.began, key=timestamps.order), seconds)


def test_chunks_are_of_the_tables_own_size(people: Tide) -> None:
    """Of a first snapshot, of a backfill, and of what a request foretells."""
    people.ingest()
    before = requests(people).take(asked(all=True, dry_run=True), EVERYTHING)
    people.configure('[tables."public.t"]\nchunk_megabytes = 1\n')
    [foretold] = requests(people).take(asked(all=True, dry_run=True), EVERYTHING)
    run = backfill(people, asked(all=True))
    assert ([each.chunks for each in before], foretold.chunks, run.chunks) == ([1], 2, 2)
    assert isinstance(people.events()[-2].what, Planned)
    people.read_chunks()


def test_no_row_is_lost_where_other_timestamp_columns_are_named(tide: Tide) -> None:
    """They may lie far behind the bound, which begins anew; and so it does on the way back."""
    tide.run(
        "CREATE TABLE t (id int PRIMARY KEY, updated_at timestamptz DEFAULT now(), happened_at timestamptz)",
        "CREATE INDEX ON t (updated_at)",
        "CREATE INDEX ON t (happened_at)",
        "INSERT INTO t VALUES (1, now(), now() - interval '9 days')",
    )
    tide.ingest(limits=BOUNDED)
    tide.configure('[tables."public.t"]\ntimestamp_columns = ["happened_at"]\n')
    for number in (2, 3):
        tide.run(f"INSERT INTO t VALUES ({number}, now(), now() - interval '9 days')")
        assert tide.ingest(limits=BOUNDED).rows == 1
    state = tide.state()
    assert state.times == ("happened_at",)
    assert state.bound == timestamps.before(state.timestamp or "", LIMITS.look_back)
    tide.configure("")
    tide.run("INSERT INTO t VALUES (4, now(), NULL)")
    assert tide.ingest(limits=BOUNDED).rows == 1
    assert tide.values("id") == [1, 2, 3, 4]


@pytest.fixture
def configurations(lake: Lake) -> Configurations:
    """Of an empty lake."""
    return Configurations(lake.ssm, lake.prefix)


def look_back(configurations: Configurations) -> float | None:
    """Return the look-back in force of some table."""
    return configurations.table(NAME).look_back


def document(seconds: int) -> str:
    """Return a document that is told by its look-back."""
    return f'[tables."*"]\nlook_back_seconds = {seconds}\n'


def test_a_version_is_asked_for_once_and_never_gone_back_from(configurations: Configurations, lake: Lake) -> None:
    """A message names the version that its tick went by: workers go by that, whatever was written since."""
    process = Process()
    following = Configurations(process.client(lake.ssm), lake.prefix)
    for seconds in (1, 2, 3):
        configurations.write(document(seconds))
    seen = []
    for version in (0, 1, 1, 2, 1, 2, 3):
        following.follow(version)
        seen.append((version, look_back(following), len(process.calls)))
    assert seen == [(0, None, 0), (1, 1, 1), (1, 1, 1), (2, 2, 2), (1, 3, 3), (2, 3, 4), (3, 3, 4)]


def test_a_version_that_is_gone_gives_way_to_the_latest(configurations: Configurations, lake: Lake) -> None:
    """Parameter Store keeps a hundred; a parameter that was deleted counts anew."""
    configurations.write(document(5))
    assert configurations.follow(7).version == 1
    assert look_back(configurations) == 5
    lake.ssm.delete_parameter(Name=f"{lake.prefix}/configuration")
    assert configurations.follow(8) == Configuration()
    assert configurations.read() is None


def test_a_document_that_cannot_be_used_leaves_the_one_before_in_force(
    configurations: Configurations, lake: Lake
) -> None:
    """It says which version is wrong, and where."""
    configurations.write(document(5))
    configurations.follow()
    lake.ssm.put_parameter(Name=f"{lake.prefix}/configuration", Value="x = 1", Overwrite=True)
    with pytest.raises(InvalidSetting, match="read version 2 of the configuration: x is no setting"):
        configurations.follow()
    assert look_back(configurations) == 5
    assert configurations.follow(1).version == 1


def test_a_document_fits_into_a_parameter(configurations: Configurations) -> None:
    """Up to 8 KiB, in bytes; an empty one too. What can't be used is never written."""
    text = document(5) + "#"
    assert configurations.write(text + "x" * (LARGEST - len(text))) == 1
    assert configurations.follow().version == 1
    with pytest.raises(InvalidSetting, match=r"it has 8,193 bytes, and Parameter Store takes 8,192"):
        configurations.write(text + "é" + "x" * (LARGEST - len(text) - 1))
    with pytest.raises(InvalidSetting, match="x is no setting"):
        configurations.write("x = 1")
    assert configurations.write("") == 2
    assert configurations.follow() == Configuration(version=2)


@pytest.mark.parametrize(
    ("code", "kind"), [("ThrottlingException", StoreUnreachable), ("AccessDeniedException", AccessDenied)]
)
def test_a_store_that_refuses_is_an_error(lake: Lake, code: str, kind: type[Exception]) -> None:
    """Never taken for a document that is not there."""
    process = Process()
    for call in ("get_parameter", "put_parameter"):
        process.at("before", Call(call), refusal(code))
    refused = Configurations(process.client(lake.ssm), lake.prefix)
    with pytest.raises(kind, match="read the configuration"):
        refused.follow()
    with pytest.raises(kind, match="write the configuration"):
        refused.write("")


def test_a_worker_goes_by_the_version_of_the_message_and_else_by_the_latest(people: Tide) -> None:
    """What was written since, by hand and wrong, fails only what names no version."""
    people.configurations.write(PRIVATE)
    people.lake.ssm.put_parameter(Name=f"{people.lake.prefix}/configuration", Value="x = 1", Overwrite=True)
    do(people, ingest(NAME, "now", 1))
    assert sorted(people.rows()[0]) == ["id", "mood", "text", "updated_at"]
    for message in (Ingest(version=1, type="ingest", table="public.t"), decode(encode(ingest(NAME, "now", 3)))):
        with pytest.raises(InvalidSetting, match="version 2 of the configuration"):
            do(people, message)
    people.configurations.write("")
    do(people, ingest(NAME, "now"))
    assert people.kinds() == ["snapshotted", "schema_changed", "ingested"]
    assert sorted(people.rows()[-1]) == ["email", "id", "mood", "seen_at", "text", "updated_at"]


def test_a_tick_goes_by_the_document_and_says_which(people: Tide) -> None:
    """Its lists take the place of the stack's; a section for a table that is not there is refused by name."""
    people.run("CREATE TABLE u (id int)", "CREATE TABLE v (id int)")
    people.configure('include = ["public.t", "public.u"]\n[tables."public.tt"]\nstrategy = "xmin"\n')
    tick = schedule(
        "now",
        source=people.source,
        queue=people.outbox,
        selection=Selection.parse("public.v", "public.u"),
        configuration=people.configurations.follow(),
    )
    assert (tick.tables, tick.configuration) == ((NAME,), 1)
    assert tick.refused == (Left("public.tt", '[tables."public.tt"]: no such table: did you mean public.t?'),)
    assert people.outbox.take() == [ingest(NAME, "now", 1)]


def test_a_letter_goes_back_without_its_version(post: Post, lake: Lake) -> None:
    """What is mended since would not count else."""
    letters = DeadLetters(post.sqs, post.dead, Failures(lake.s3, lake.bucket))
    why = Failure("InvalidSetting", "why", "", "public.t", "run", 1, "2026-11-23T12:00:00Z", "2026-11-23T12:00:00Z")
    message = post.received(encode(ingest(NAME, "now", 7)))
    letters.bury(message, why)
    post.sqs.delete_message(QueueUrl=post.work, ReceiptHandle=message.receipt)
    queue = post.work.rpartition("/")[2]
    with letters.opened() as opened:
        for letter in opened:
            letters.redrive(letter, {queue: post.work})
    assert [decode(each["Body"]) for each in post.receive(post.work)] == [ingest(NAME, "now")]
