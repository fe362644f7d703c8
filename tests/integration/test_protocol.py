"""The commit protocol: whatever happens between its steps, every row version is published exactly once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from threading import Barrier
from typing import Any

import msgspec
import pytest
from botocore.exceptions import ReadTimeoutError
from msgspec.structs import replace

from tests.conftest import make_lake
from tests.faults import COMMIT, CREATE, DESCRIBE, PART, PROJECT, PUBLISH, STEPS, KilledError, Process, Step, refusal
from tests.tide import LIMITS, Database, Tide
from tidelog.errors import Conflict, DatabaseBusy, StoreUnreachable, UnreadableData
from tidelog.events import Event, Remade, SchemaChanged
from tidelog.lake import event_key, read_segment_key
from tidelog.parameters import Summary
from tidelog.records import encode, sealed
from tidelog.state import State
from tidelog.tables import TableName
from tidelog_sandbox.cloud import Cloud

NAME = TableName("public", "t")


@pytest.fixture
def filled(tide: Tide) -> Tide:
    """A table of two rows and one increment of two more, all in the lake."""
    tide.run("CREATE TABLE t (id int PRIMARY KEY)", "INSERT INTO t VALUES (1), (2)")
    tide.ingest()
    tide.run("INSERT INTO t VALUES (3), (4)")
    tide.ingest()
    return tide


def add(tide: Tide, *ids: int) -> None:
    """Insert rows."""
    tide.run(*(f"INSERT INTO t VALUES ({number})" for number in ids))


def run(tide: Tide, process: Process, **parts: Any) -> Any:
    """Run the table in a process."""
    return tide.ingest(s3=process.client(tide.lake.s3), ssm=process.client(tide.lake.ssm), **parts)


def killed_at(step: Step, when: str) -> Process:
    """Return a process that will be killed at a step."""
    process = Process()
    process.at(when, step, process.kill)
    return process


def killed_after_remaking() -> Process:
    """Return a process that will be killed when it publishes what it has made again."""
    process = Process()
    process.at("after", COMMIT, lambda: process.at("before", PUBLISH, process.kill))
    return process


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("step", [DESCRIBE, *STEPS], ids=lambda step: step.operation + step.key)
@pytest.mark.parametrize("first", [True, False], ids=["snapshot", "increment"])
def test_a_worker_may_be_killed_at_any_step(tide: Tide, step: Step, when: str, first: bool) -> None:
    """The next run finishes or repeats it: one segment, one event, one sequential id."""
    tide.run("CREATE TABLE t (id int PRIMARY KEY)", "INSERT INTO t VALUES (0)")
    if not first:
        tide.ingest()
        if step is DESCRIBE:
            tide.run("ALTER TABLE t ADD v int")
    add(tide, 1, 2)
    with pytest.raises(KilledError):
        run(tide, killed_at(step, when))
    add(tide, 3)
    committed = step in (PUBLISH, PROJECT) or (step, when) == (COMMIT, "after")
    assert tide.ingest().rows == (1 if committed else 3 if not first else 4)
    assert tide.values("id") == [0, 1, 2, 3]
    assert tide.state().sequential_id == (not first) + committed
    assert tide.ingest().outcome == "unchanged"
    uploaded = step in (PART, COMMIT) or (step, when) == (CREATE, "after")
    assert tide.lake.expire_uploads() == (uploaded and not committed)


@pytest.mark.parametrize("times", [1, 2, 3])
def test_a_committed_segment_whose_upload_is_gone_is_made_again(filled: Tide, times: int) -> None:
    """From the event's window: neither rows that came later nor rows of before. The ledger says so, each time."""
    add(filled, 5, 6)
    with filled.database.session() as late:
        late.run("BEGIN; INSERT INTO t VALUES (7)")
        with pytest.raises(KilledError):
            run(filled, killed_at(PUBLISH, "before"))
        late.run("COMMIT")
    add(filled, 8)
    for _ in range(times - 1):
        assert filled.lake.expire_uploads() == 1
        with pytest.raises(KilledError):
            run(filled, killed_after_remaking())
    assert filled.lake.expire_uploads() == 1
    assert filled.ingest().rows == 2
    assert [sorted(line) for line in filled.segments().values()][2:] == [
        [b'{"id":5}', b'{"id":6}'],
        [b'{"id":7}', b'{"id":8}'],
    ]
    assert filled.kinds() == ["snapshotted", "ingested", "ingested", *["remade"] * times, "ingested"]
    assert {event.what.of for event in filled.events() if isinstance(event.what, Remade)} == {3}


def test_a_segment_made_again_leaves_out_versions_that_are_gone(filled: Tide) -> None:
    """They were replaced by newer ones, which come with a later segment."""
    add(filled, 5, 6)
    with pytest.raises(KilledError):
        run(filled, killed_at(PUBLISH, "before"))
    filled.run("UPDATE t SET id = 60 WHERE id = 6")
    filled.lake.expire_uploads()
    assert filled.ingest().rows == 1
    assert filled.values("id") == [1, 2, 3, 4, 5, 60]
    assert [event.segment.rows for event in filled.events() if event.segment] == [2, 2, 2, 1, 1]


def test_two_workers_that_make_a_segment_again_leave_one(filled: Tide) -> None:
    """The slower one throws its own away, and finds its work done."""
    add(filled, 5)
    with pytest.raises(KilledError):
        run(filled, killed_at(PUBLISH, "before"))
    filled.lake.expire_uploads()
    other, process = filled.ingestion(source=filled.database.source()), Process()
    process.at("before", COMMIT, lambda: other.ingest(NAME, seconds=60))
    assert run(filled, process).outcome == "unchanged"
    assert filled.kinds() == ["snapshotted", "ingested", "ingested", "remade"]
    assert filled.lake.uploads() == []


def test_a_segment_made_again_says_which_columns_it_has(filled: Tide) -> None:
    """Those of now: the schema document that its event names describes its lines."""
    add(filled, 5)
    with pytest.raises(KilledError):
        run(filled, killed_at(PUBLISH, "before"))
    filled.lake.expire_uploads()
    filled.run("ALTER TABLE t ADD v int DEFAULT 7")
    filled.ingest()
    assert filled.latest()[5] == {"id": 5, "v": 7}
    assert filled.kinds()[-4:] == ["ingested", "remade", "schema_changed", "ingested"]
    committed, remade = (event.segment.schema for event in filled.events()[-4:-2] if event.segment)
    assert committed != remade == filled.state().schema


@pytest.mark.parametrize("field", ["system", "oid"])
def test_a_segment_of_another_database_is_not_made_again_from_this_one(filled: Tide, field: str) -> None:
    """Its transaction ids mean nothing here. It is empty; the rows of here come with the new timeline's snapshot."""
    add(filled, 5)
    with pytest.raises(KilledError):
        run(filled, killed_at(PUBLISH, "before"))
    filled.lake.expire_uploads()
    elsewhere(filled, field)
    assert filled.ingest().rows == 5
    assert filled.kinds()[-3:] == ["remade", "timeline_started", "snapshotted"]
    assert [len(lines) for lines in filled.segments().values()] == [2, 2, 0, 5]


def test_a_segment_that_is_published_twice_is_published(filled: Tide) -> None:
    """S3 forgets a completed upload after a while; the object vouches for it."""
    add(filled, 5)
    with pytest.raises(KilledError):
        run(filled, killed_at(PROJECT, "before"))
    process = Process()
    process.at("before", PUBLISH, refusal("NoSuchUpload"))
    assert run(filled, process).outcome == "unchanged"
    assert filled.kinds() == ["snapshotted", "ingested", "ingested"]


def test_the_loser_of_a_race_has_nothing_to_do(filled: Tide) -> None:
    """Another worker has read the same window: it throws its upload away and says so."""
    add(filled, 5)
    other, process = filled.ingestion(source=filled.database.source()), Process()
    process.at("before", COMMIT, lambda: other.ingest(NAME, seconds=60))
    assert run(filled, process).outcome == "covered"
    assert process.calls[-1] == "abort_multipart_upload"
    assert filled.values("id") == [1, 2, 3, 4, 5]
    assert filled.kinds() == ["snapshotted", "ingested", "ingested"]


def test_the_loser_of_the_race_for_the_snapshot_has_nothing_to_do(tide: Tide) -> None:
    """Just so."""
    tide.run("CREATE TABLE t (id int PRIMARY KEY)")
    add(tide, 1)
    other, process = tide.ingestion(source=tide.database.source()), Process()
    process.at("before", COMMIT, lambda: other.ingest(NAME, seconds=60))
    assert run(tide, process).outcome == "covered"
    assert (tide.values("id"), tide.kinds()) == ([1], ["snapshotted"])


def test_an_event_that_leaves_the_window_alone_only_moves_the_offset(filled: Tide) -> None:
    """What was read is still to be written, and is not read again."""
    add(filled, 5)
    process = Process()

    def append(state: State) -> None:
        filled.ledger.append(NAME, state, SchemaChanged(state.schema or "", "nothing"), finished=0)

    process.at("before", COMMIT, lambda: append(filled.state()))
    process.at("before", COMMIT, lambda: append(filled.state()))
    assert run(filled, process).outcome == "ingested"
    assert process.calls.count("create_multipart_upload") == 1
    assert filled.kinds()[2:] == ["schema_changed", "schema_changed", "ingested"]
    assert filled.values("id") == [1, 2, 3, 4, 5]


def test_a_window_that_moved_before_it_was_settled_is_looked_at_again(filled: Tide) -> None:
    """A change of columns that another worker was faster to record is not recorded twice."""
    filled.run("ALTER TABLE t ADD v int")
    add_row = "INSERT INTO t VALUES (5, 5)"
    filled.run(add_row)
    other, process = filled.ingestion(source=filled.database.source()), Process()
    process.at("before", COMMIT, lambda: other.ingest(NAME, seconds=60))
    assert run(filled, process).outcome == "unchanged"
    assert filled.kinds()[2:] == ["schema_changed", "ingested"]


def test_a_worker_that_always_loses_gives_up_for_now(filled: Tide) -> None:
    """The message comes again later."""
    filled.run("ALTER TABLE t ADD v int")
    process = Process()
    states = iter(range(10))

    def take() -> None:
        state = filled.state()
        filled.ledger.append(NAME, state, SchemaChanged(f"other{next(states)}", "another"), finished=0)
        filled.lake.s3.put_object(Bucket=filled.lake.bucket, Key=f"schema/public.t/other{next(states)}.json", Body=b"")
        process.at("before", COMMIT, take)

    document = filled.lake.body(filled.lake.keys("schema/")[0])
    for number in range(20):
        filled.lake.s3.put_object(Bucket=filled.lake.bucket, Key=f"schema/public.t/other{number}.json", Body=document)
    process.at("before", COMMIT, take)
    with pytest.raises(Conflict, match="other workers took the offset 5 times"):
        run(filled, process)


@pytest.mark.parametrize("times", [1, 7])
def test_a_conflict_under_way_is_waited_for(filled: Tide, times: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """S3 answers 409 while another conditional write of the key has not ended."""
    monkeypatch.setattr("tidelog.objects._WAIT_SECONDS", 0)
    add(filled, 5)
    process = Process()
    for _ in range(times):
        process.at("before", COMMIT, refusal("ConditionalRequestConflict"))
    assert run(filled, process).outcome == "ingested"


def test_a_conflict_that_never_ends_is_tried_again_later(filled: Tide, monkeypatch: pytest.MonkeyPatch) -> None:
    """As an unreachable store."""
    monkeypatch.setattr("tidelog.objects._WAIT_SECONDS", 0)
    add(filled, 5)
    process = Process()
    for _ in range(20):
        process.at("before", COMMIT, refusal("ConditionalRequestConflict"))
    with pytest.raises(StoreUnreachable, match="ConditionalRequestConflict"):
        run(filled, process)
    assert filled.ingest().rows == 1
    assert filled.lake.expire_uploads() == 1  # nobody knew whether its event was there


def test_a_worker_knows_its_own_event_again(filled: Tide) -> None:
    """The reply to its write was lost, and the client's own second try met the event of the first."""
    add(filled, 5)
    process = Process()
    process.at("after", COMMIT, refusal("PreconditionFailed"))
    assert run(filled, process).outcome == "ingested"
    assert filled.values("id") == [1, 2, 3, 4, 5]


def _time_out() -> None:
    raise ReadTimeoutError(endpoint_url="https://s3")


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.operation)
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_store_that_does_not_answer_is_tried_again(filled: Tide, step: Step, when: str) -> None:
    """Whether the call was carried out or not; the next run finds out."""
    add(filled, 5)
    process = Process()
    process.at(when, step, _time_out)
    with pytest.raises(StoreUnreachable, match="ReadTimeoutError"):
        run(filled, process)
    add(filled, 6)
    assert filled.ingest().outcome == "ingested"
    assert filled.values("id") == [1, 2, 3, 4, 5, 6]
    # Aborted, but where nobody could know whether the upload or the event was there.
    assert filled.lake.expire_uploads() == ((step, when) in [(CREATE, "after"), (COMMIT, "before")])


BOGUS: dict[str, Callable[[Tide], None]] = {
    "lost": lambda tide: put(tide, None),
    "no JSON": lambda tide: put(tide, "garbage"),
    "another shape": lambda tide: put(tide, '{"offset": "x"}'),
    "empty": lambda tide: put(tide, "{}"),
    "stale": lambda tide: put(tide, msgspec.json.encode(Summary(offset=1)).decode()),
    "of another ledger": lambda tide: put(
        tide, msgspec.json.encode(Summary(offset=10**9, sequential_id=77, horizon=2**60)).decode()
    ),
}


def put(tide: Tide, value: str | None) -> None:
    """Set the table's parameter. Who knows the table would not look at it for a while."""
    tide.glances.forget(NAME)
    [name] = [
        found["Name"]
        for found in tide.lake.ssm.get_parameters_by_path(Path=tide.lake.prefix, Recursive=True)["Parameters"]
    ]
    if value is None:
        tide.lake.ssm.delete_parameter(Name=name)
    else:
        tide.lake.ssm.put_parameter(Name=name, Value=value, Overwrite=True)


@pytest.mark.parametrize("bogus", BOGUS)
@pytest.mark.parametrize("crashed", [False, True], ids=["published", "unpublished"])
def test_parameter_store_is_only_a_cache(filled: Tide, bogus: str, crashed: bool) -> None:
    """The ledger goes on where it was, what was not published is, and the parameter is made again."""
    if crashed:
        add(filled, 5)
        with pytest.raises(KilledError):
            run(filled, killed_at(PUBLISH, "before"))
    BOGUS[bogus](filled)
    assert filled.ingest().outcome == "unchanged"
    filled.check()
    BOGUS[bogus](filled)
    add(filled, 6)
    assert filled.ingest().rows == 1
    assert filled.values("id") == [1, 2, 3, 4, *([5] if crashed else []), 6]


def test_a_lost_summary_costs_a_look_at_the_newest_segment(filled: Tide) -> None:
    """Its event vouches for all before it, of however many there are."""
    put(filled, None)
    process = Process()
    run(filled, process)
    assert sorted(set(process.calls)) == ["complete_multipart_upload", "get_object", "get_parameter", "put_parameter"]
    assert process.calls.count("get_object") == 1


def test_a_summary_of_a_ledger_that_was_deleted_holds_nothing_back(filled: Tide) -> None:
    """An operator emptied the bucket to begin anew."""
    filled.lake.empty()
    assert filled.ingest().outcome == "snapshotted"


def test_a_parameter_is_well_below_what_parameter_store_takes(filled: Tide) -> None:
    """4 KB is the most of a standard parameter."""
    [found] = filled.lake.ssm.get_parameters_by_path(Path=filled.lake.prefix, Recursive=True)["Parameters"]
    assert len(found["Value"]) < 400
    assert dict(filled.parameters.read_all()) == {NAME: filled.parameters.read(NAME)}


@pytest.mark.parametrize("body", [b"", b"{}", b"not JSON"])
def test_a_ledger_that_was_changed_by_hand_is_not_guessed_at(filled: Tide, body: bytes) -> None:
    """The error names the object."""
    key = event_key(NAME, 2)
    filled.lake.s3.put_object(Bucket=filled.lake.bucket, Key=key, Body=body)
    filled.glances.forget(NAME)  # who knows the table does not read it
    with pytest.raises(UnreadableData, match=key):
        filled.ingest()
    filled.lake.empty()


def rewrite(tide: Tide, old: str, new: str) -> None:
    """Have every event say that another database was read. Who knows the table does not read them."""
    tide.glances.forget(NAME)
    digest = ""
    for key in sorted(tide.lake.keys("ledger/")):
        body = tide.lake.body(key)
        assert old.encode() in body
        event = msgspec.json.decode(body.replace(old.encode(), new.encode()), type=Event)
        event = sealed(msgspec.structs.replace(event, previous=digest))
        tide.lake.s3.put_object(Bucket=tide.lake.bucket, Key=key, Body=encode(event))
        digest = event.digest


def elsewhere(tide: Tide, field: str) -> None:
    """Have every event say that a database was read that is another by a field."""
    database = tide.state().database
    assert database is not None
    value = msgspec.json.encode(getattr(database, field)).decode()
    rewrite(tide, f'"{field}": {value}', f'"{field}": {value.replace(value.strip(chr(34)), "77")}')


@pytest.mark.parametrize("field", ["system", "oid"])
def test_another_database_starts_a_new_timeline_with_a_snapshot(filled: Tide, field: str) -> None:
    """Transaction ids of two databases can't be compared."""
    elsewhere(filled, field)
    assert (filled.ingest().outcome, filled.kinds()[2:]) == ("snapshotted", ["timeline_started", "snapshotted"])
    assert filled.values("id") == [1, 1, 2, 2, 3, 3, 4, 4]
    assert (filled.state().timeline, filled.state().sequential_id) == (2, 1)
    add(filled, 5)
    assert filled.ingest().sequential_id == 2
    positions = [read_segment_key(key)[1] for key in filled.segments()]
    assert positions == sorted(positions)


def failed_over(tide: Tide, ages: list[float]) -> None:
    """Make a ledger with a snapshot and increments of some ages in hours, of a server that has failed over since."""
    tide.run("CREATE TABLE t (id int PRIMARY KEY)")
    for number, age in enumerate(ages, 1):
        tide.now = lambda age=age: datetime.now(UTC) - timedelta(hours=age)  # type: ignore[misc] # a default argument binds it
        add(tide, number)
        tide.ingest()
    tide.now = lambda: datetime.now(UTC)
    rewrite(tide, '"wal_timeline": 1', '"wal_timeline": 0')


@pytest.mark.parametrize(
    ("ages", "calm", "again", "of_a_small_one"),
    [
        ([3, 2, 0.5, 0], None, [3, 4], [1, 2, 3, 4]),  # back to the newest event older than an hour
        ([3, 2], 0, [], []),  # the last one is old enough: nothing can have been lost since
        ([0.5, 0], None, [1, 2], [1, 2]),  # none is: everything
        ([1.01, 0.99], 0, [2], [1, 2]),  # the margin is an hour, on both sides
        ([9, 6, 5.9], None, [2, 3], [1, 2, 3]),  # as of when the server of before was seen last: nobody came by since
        ([9, 6, 5.9], 4.95, [3], [1, 2, 3]),
        ([9, 6, 5.9], 4.85, [], []),
    ],
)
@pytest.mark.parametrize("small", [False, True])
def test_a_failover_rewinds_by_the_margin(
    tide: Tide, ages: list[float], calm: float | None, again: list[int], of_a_small_one: list[int], *, small: bool
) -> None:
    """Rows that may carry ids given out twice are read again, which the ledger announces; a small table whole."""
    failed_over(tide, ages)
    limits = LIMITS if small else replace(LIMITS, chunk_bytes=4096)
    tide.ingest(limits=limits, calm=None if calm is None else datetime.now(UTC) - timedelta(hours=calm))
    tide.read_chunks(limits=limits)
    again = of_a_small_one if small else again
    assert tide.kinds()[len(ages)] == "timeline_started"
    assert "failed over: WAL timeline 1 after WAL timeline 0" in tide.events()[len(ages)].what.reason  # type: ignore[union-attr] # it is a TimelineStarted
    assert tide.values("id") == sorted([*range(1, len(ages) + 1), *again])
    assert tide.state().timeline == 2
    add(tide, 9)
    assert tide.ingest().rows == 1
    assert tide.verify().is_right


def test_rows_counted_and_read_have_to_agree(filled: Tide, monkeypatch: pytest.MonkeyPatch) -> None:
    """A table that was rewritten under a materialized view's or a bug's nose is tried again, not committed."""
    add(filled, 5)
    monkeypatch.setattr("tidelog.opening.OpenTable.copy", lambda *_: 0)
    with pytest.raises(DatabaseBusy, match="0 rows were read where 1 were counted"):
        filled.ingest()


def test_a_large_segment_is_uploaded_in_parts(tide: Tide, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each but the last of at least 5 MiB, which S3 asks for; memory holds a few of them only."""
    monkeypatch.setattr("tidelog.segment._PART_BYTES", 5 * 2**20)
    tide.run(
        "CREATE TABLE t AS SELECT n AS id, "
        "(SELECT string_agg(md5(format('%s %s', n, m)), '') FROM generate_series(1, 16) m) AS x "
        "FROM generate_series(1, 25000) n"
    )
    process = Process()
    assert run(tide, process).rows == 25000
    assert process.calls.count("upload_part") == len(tide.events()[0].segment.etags) > 1  # type: ignore[union-attr] # it is there
    assert tide.values("id") == list(range(1, 25001))
    process = Process()
    tide.run("UPDATE t SET x = x")
    process.at("before", PART, lambda: process.at("before", PART, _time_out))
    with pytest.raises(StoreUnreachable):
        run(tide, process)
    assert tide.lake.uploads() == []


@pytest.fixture(scope="module")
def cloud() -> Iterator[Cloud]:
    """A store whose conditional writes are atomic, and which answers 409 as the real one may."""
    with Cloud(conflicts=True) as cloud:
        yield cloud


def test_of_many_workers_exactly_one_commits_each_window(
    cloud: Cloud, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They start at the same moment, round after round; the others find their work done."""
    lake = make_lake(cloud.client("s3"), cloud.client("ssm"))
    tide = Tide(database, lake)
    tide.run("CREATE TABLE t (id int PRIMARY KEY)")
    workers = [tide.ingestion(source=database.source()) for _ in range(4)]
    barrier = Barrier(len(workers))

    def work(number: int) -> str:
        barrier.wait()
        return workers[number].ingest(NAME, seconds=60).outcome

    with ThreadPoolExecutor(len(workers)) as pool:
        for number in range(5):
            add(tide, number)
            outcomes = sorted(pool.map(work, range(len(workers))))
            assert sum(outcome in ("ingested", "snapshotted") for outcome in outcomes) == 1
            assert set(outcomes) <= {"ingested", "snapshotted", "covered", "unchanged"}
    assert tide.values("id") == list(range(5))
    tide.check()
    assert lake.uploads() == []
