"""What an event has to say, given the state that it goes on from."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from tidelog.plans import Dropped, Kind, OpenPlan, Planned
from tidelog.readings import LeafReading, Reading
from tidelog.state import State
from tidelog.verification.seams import plan_seams
from tidelog.windows import Database

READING = Reading((LeafReading(1),), (), None, True, "", Database("1", 1, "d", 1), 1, 7, (), "", None, None)


@pytest.mark.parametrize(
    ("kind", "planned", "windows", "wanted"),
    [("snapshot", 5, 7, 7), ("increment", 5, 7, 7), ("backfill", 5, 7, 7), ("backfill", 9, 7, 9), ("sweep", 5, 7, 5)],
)
def test_what_is_planned_anew_reads_up_to_where_windows_have_come(
    kind: Kind, planned: int, windows: int, wanted: int
) -> None:
    """Less would leave rows out, more would have them twice; a sweep goes on as it was."""
    before = State(offset=3, horizon=windows, plans=(OpenPlan(2, kind, planned, 4, 100),))
    what = Planned(kind, "", READING, "", instead=Dropped(2, ((1, 4),)))
    said = {
        horizon: list(plan_seams(before, replace(what, reading=replace(READING, horizon=horizon))))
        for horizon in (wanted - 1, wanted, wanted + 1)
    }
    assert [bool(each) for each in said.values()] == [True, False, True]
    assert f"up to {wanted}, and reads up to {wanted + 1}" in said[wanted + 1][0]
    other = replace(what, instead=Dropped(1, ()))
    assert list(plan_seams(before, other)) == ["it takes the place of chunks of plan 1, which is not under way"]
