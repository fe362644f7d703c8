"""Verification: it finds whatever is planted in a lake, names it, and is silent about a good one."""

from __future__ import annotations

from tests.tide import Tide


def test_first(tide: Tide) -> None:
    """It."""
    tide.run("CREATE TABLE t (id int PRIMARY KEY, v text)", "INSERT INTO t SELECT n, repeat('x', n) FROM generate_series(1, 300) n")
    tide.ingest()
    tide.run("UPDATE t SET v = 'new' WHERE id < 10", "DELETE FROM t WHERE id = 50")
    tide.ingest()
    tide.run("UPDATE t SET v = 'newer' WHERE id < 5", "INSERT INTO t VALUES (1000, 'later')")
    found = tide.verify()
    print(found, list(found.remedies()), found.verdict)
    assert found.is_right
    assert (found.rows, found.pending, found.gone) == (295, 5, 1)
