"""Parameter Store made again from the ledger: what is published counts, whoever writes meanwhile."""

from __future__ import annotations

import pytest

from tests.faults import COMMIT, PROJECT, PUBLISH, KilledError, Process
from tests.tide import Tide
from tidelog.history import History
from tidelog.parameters import Parameters, Summary
from tidelog.rebuilding import Comparison, Rebuilding
from tidelog.segment import Segments
from tidelog.stores import Bucket
from tidelog.tables import TableName

TABLE = TableName("public", "t")


@pytest.fixture
def filled(tide: Tide) -> Tide:
    """A table with two events."""
    tide.run("CREATE TABLE t AS SELECT 1 AS id")
    tide.ingest()
    tide.run("INSERT INTO t VALUES (2)")
    tide.ingest()
    return tide


def rebuilding(tide: Tide, process: Process | None = None) -> Rebuilding:
    """Return what makes summaries again; its calls of Parameter Store may be seen."""
    ssm = process.client(tide.lake.ssm) if process else tide.lake.ssm
    store = Bucket(tide.lake.s3, tide.lake.bucket)
    return Rebuilding(History(store), Segments(tide.lake.s3, tide.lake.bucket), Parameters(ssm, tide.lake.prefix))


def rebuilt(tide: Tide) -> Comparison:
    """Make the summary of the table again; afterwards nothing differs, and all is as it always is."""
    done = rebuilding(tide).write(TABLE)
    assert not rebuilding(tide).compare(TABLE).differs
    return done


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, "there is none"),
        ("{", "it is not a summary"),
        ('{"offset":9,"sequential_id":9}', "it is ahead of the ledger"),
        ('{"offset":1}', "it lags behind"),
        ('{"offset":2,"sequential_id":7}', "it says something else"),
    ],
)
def test_whatever_is_wrong_is_made_good(filled: Tide, value: str | None, reason: str) -> None:
    """And what is right is not written: its version stays."""
    parameters, before = filled.parameters, filled.parameters.read(TABLE)
    name = f"{filled.lake.prefix}/tables/public/t"
    parameters.forget(TABLE)
    if value:
        filled.lake.ssm.put_parameter(Name=name, Value=value, Type="String")
    assert rebuilding(filled).compare(TABLE).reason == reason
    assert rebuilt(filled).reason == reason
    now = parameters.kept(TABLE)
    assert now
    assert before
    assert now.summary
    assert now.summary.offset == before.offset == 2
    filled.check()
    assert not rebuilt(filled).differs
    assert parameters.kept(TABLE) == now


def test_a_summary_without_a_ledger_is_deleted_but_not_one_that_is_only_awaited(tide: Tide) -> None:
    """Since when a table is awaited nobody else knows."""
    tide.parameters.write(TABLE, Summary(offset=3, sequential_id=1))
    assert rebuilt(tide).reason == "there is no ledger"
    assert tide.parameters.read(TABLE) is None
    tide.parameters.expect(TABLE, tide.now())
    assert not rebuilt(tide).differs
    assert tide.parameters.read(TABLE)


def test_what_is_not_published_is_not_told_of(filled: Tide) -> None:
    """A worker has died between the commit and the publication: its event is in the ledger, its rows are not there."""
    process = Process()
    filled.run("INSERT INTO t VALUES (3)")
    process.at("before", PUBLISH, process.kill)
    with pytest.raises(KilledError):
        filled.ingest(s3=process.client(filled.lake.s3), ssm=process.client(filled.lake.ssm))
    assert filled.state().offset == 3
    assert not rebuilding(filled).compare(TABLE).differs
    filled.parameters.forget(TABLE)
    rebuilt(filled)
    summary = filled.parameters.read(TABLE)
    assert summary
    assert summary.offset == 2
    filled.parameters.write(TABLE, Summary(offset=3, sequential_id=2))
    assert rebuilt(filled).reason == "it tells of what is not published"
    filled.ingest()
    assert filled.values("id") == [1, 2, 3]
    filled.check()


def test_nothing_is_told_where_not_even_the_first_segment_is_published(tide: Tide) -> None:
    """A summary that says otherwise is deleted; the next run publishes."""
    process = Process()
    tide.run("CREATE TABLE t AS SELECT 1 AS id")
    process.at("after", COMMIT, process.kill)
    with pytest.raises(KilledError):
        tide.ingest(s3=process.client(tide.lake.s3), ssm=process.client(tide.lake.ssm))
    assert not rebuilding(tide).compare(TABLE).differs
    tide.parameters.write(TABLE, Summary(offset=1))
    rebuilt(tide)
    assert tide.parameters.read(TABLE) is None
    tide.ingest()
    assert tide.values("id") == [1]
    tide.check()


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_worker_that_writes_meanwhile_is_not_undone(filled: Tide, when: str) -> None:
    """Between the look at the ledger and the write: the versions tell, and the ledger is looked at again."""
    filled.parameters.write(TABLE, Summary(offset=1))
    process = Process()

    def work() -> None:
        filled.run("INSERT INTO t VALUES (3)")
        filled.ingest()

    process.at(when, PROJECT, work)
    rebuilding(filled, process).write(TABLE)
    summary = filled.parameters.read(TABLE)
    assert summary
    assert summary.offset == 3
    filled.check()


def test_a_table_that_gets_its_first_event_meanwhile_keeps_its_summary(tide: Tide) -> None:
    """Though the one that was there is deleted."""
    tide.run("CREATE TABLE t AS SELECT 1 AS id")
    tide.parameters.write(TABLE, Summary(offset=3))
    process = Process()
    process.at("before", PROJECT._replace(operation="delete_parameter"), tide.ingest)
    rebuilding(tide, process).write(TABLE)
    summary = tide.parameters.read(TABLE)
    assert summary
    assert summary.offset == 1
    tide.check()
