"""What a run reads: every row version once."""

from __future__ import annotations

from tests.tide import Tide


def test_a_run_without_a_change_writes_nothing(tide: Tide) -> None:
    """No object, no event: an idle table costs nothing."""
    tide.run("CREATE TABLE t (id int PRIMARY KEY)", "INSERT INTO t VALUES (1), (2)")
    assert tide.ingest().outcome == "snapshotted"
    before = tide.lake.keys()
    run = tide.ingest()
    assert (run.outcome, run.rows, run.key) == ("unchanged", 0, None)
    assert tide.lake.keys() == before
    assert tide.values("id") == [1, 2]
