"""What a stack costs by the month, and how a lake's growth is read from its ledgers."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner, Result

from tidelog.events import VERSION, Advanced, Event
from tidelog.history import History
from tidelog.state import State
from tidelog.stores import Folder
from tidelog.tables import TableName
from tidelog_cli import costs
from tidelog_cli.costs import Activity, Setup, bill
from tidelog_cli.growth import WINDOW, growth_of
from tidelog_cli.main import app
from tidelog_cli.prices import PRICES, US_EAST_1

TEMPLATE = (Path(__file__).parents[2] / "template.yaml").read_text(encoding="utf-8")
FUNCTIONS = (Path(__file__).parents[2] / "functions").rglob("app.py")
BUSY = Activity(tables=100, ticks=8760, sweeps=30, segments=200_000, bytes=50e9, stored=1e12, events=1e6)
NOW = datetime(2026, 11, 23, tzinfo=UTC)


def dollars(activity: Activity, setup: Setup = Setup(), what: str = "") -> float:  # noqa: B008 - it is frozen
    """Return what a month costs, or one thing of it."""
    return sum(item.dollars for item in bill(activity, setup, US_EAST_1) if what in f"{item.service} {item.what}")


def cost(*options: str) -> Result:
    """Run `tidelog cost` without a stack."""
    return CliRunner().invoke(app, ["cost", *options], env={"TIDELOG_STACK": None})


def test_a_stack_without_tables_costs_what_is_there_all_the_time() -> None:
    """By hand: pollers, metrics, alarms, the dashboard, the secret and its reads."""
    idle = Activity(tables=0, ticks=0, sweeps=0, segments=0, bytes=0)
    polls = 2 * 5 * 3 * 60 * 730 * 0.5 / 1e6
    assert dollars(idle) == pytest.approx(polls + 8 * 0.3 + 9 * 0.1 + 3 + 0.4 + 5 * 730 * 0.05 / 1e4)


def test_each_thing_that_a_stack_does_has_its_price() -> None:
    """By hand: a certain look at each of a hundred tables after twelve ticks, a run for each change, and sweeps."""
    runs = 100 * 8760 / 12 + 200_000 + 100 * 30
    assert BUSY.runs == runs
    assert replace(BUSY, looks=1).runs == replace(BUSY, segments=10**9).runs == 100 * 8790
    assert dollars(BUSY, what="runs of workers") == pytest.approx(runs * 0.2 / 1e6)
    assert dollars(BUSY, what="S3 LIST") == pytest.approx(runs * 0.005 / 1e3)
    assert dollars(BUSY, what="S3 PUT") == pytest.approx((200_000 * 4 + 50e9 // 2**23 + 8760) * 0.005 / 1e3)
    assert dollars(BUSY, what="storage") == pytest.approx((1000 + 2.4) * 0.023)
    assert dollars(BUSY, what="SQS messages") == pytest.approx((8790 * 10 + 2 * runs) * 0.5 / 1e6)
    measured = replace(BUSY, run_seconds=2.0)
    assert dollars(measured, Setup(memory=1024), "time of workers") == pytest.approx(runs * 2 * 0.0000133334)


@given(st.integers(0, 500), st.floats(0, 50_000), st.floats(0, 1e6), st.floats(0, 1e13), st.sampled_from([*PRICES]))
def test_more_of_anything_never_costs_less(
    tables: int, ticks: float, segments: float, size: float, region: str
) -> None:
    """And no item is negative."""
    before = Activity(tables, ticks, 30, segments, size, size, segments)
    for more in (
        replace(before, tables=tables + 1), replace(before, ticks=ticks + 1), replace(before, bytes=size + 1e9),
        replace(before, segments=segments + 1), replace(before, stored=size + 1e9),
    ):  # fmt: skip
        items = [bill(each, Setup(), PRICES[region]) for each in (before, more)]
        assert all(0 <= was.dollars <= now.dollars for was, now in zip(*items, strict=True))


def test_what_is_always_there_is_what_the_template_makes() -> None:
    """Alarms, dashboards, mappings, the scheduler's memory, and the metrics that the functions emit."""
    assert TEMPLATE.count("Type: AWS::CloudWatch::Alarm") == costs.ALARMS
    assert TEMPLATE.count("Type: AWS::CloudWatch::Dashboard") == costs.DASHBOARDS
    assert TEMPLATE.count("Type: SQS\n          Properties") == costs.MAPPINGS
    assert f"MemorySize: {costs.SCHEDULER_MEMORY}" in TEMPLATE
    emitted = {name for path in FUNCTIONS for name in re.findall(r'\("(\w+)", MetricUnit', path.read_text("utf-8"))}
    assert len(emitted) == costs.METRICS
    defaults = {"WorkerMemory": Setup().memory, "WorkConcurrency": Setup().workers, "CertainLookTicks": costs.LOOKS}
    for name, default in defaults.items():
        assert re.search(rf"  {name}:\n    Type: Number\n    Default: {default}\n", TEMPLATE)


class Told(History):
    """The events of one table, at some hours before now; each brings as many bytes as its offset."""

    def __init__(self, ages: list[float]) -> None:
        super().__init__(Folder(Path()))
        self.all = [
            Event(VERSION, "a.b", offset, (NOW - timedelta(hours=age)).isoformat(), "", 0, _NOTHING,
                  State(offset=offset, bytes=sum(range(1, offset + 1))))
            for offset, age in enumerate(sorted(ages, reverse=True), 1)
        ]  # fmt: skip

    def tables(self) -> Iterator[TableName]:
        """Yield the table."""
        yield TableName("a", "b")

    def head(self, table: TableName, known: int = 0) -> Event | None:  # noqa: ARG002 - the real one's
        """Return the newest event."""
        return self.all[-1] if self.all else None

    def read(self, table: TableName, offset: int) -> Event:  # noqa: ARG002 - the real one's
        """Return one event."""
        return self.all[offset - 1]


_NOTHING: Advanced = None  # type: ignore[assignment] # what an event brought stands in its state


@given(st.lists(st.floats(0.5, 1000), unique=True))
def test_growth_is_what_the_last_week_has_brought(ages: list[float]) -> None:
    """Found by halving, the same as by looking at each; the first event of all is a beginning, and not growth."""
    history = Told(ages)
    found = growth_of(history, NOW)
    recent = [event for event in history.all[1:] if datetime.fromisoformat(event.at) >= NOW - WINDOW]
    assert (found.events, found.bytes) == (len(recent), sum(event.offset for event in recent))
    assert (found.all_events, found.stored) == (len(ages), sum(range(1, len(ages) + 1)))
    assert found.seconds <= WINDOW.total_seconds()
    assert found.seconds == pytest.approx(min(WINDOW.total_seconds(), max(ages, default=0) * 3600))


def test_an_estimate_needs_no_stack() -> None:
    """Tables and a schedule are enough; a region without prices is said to have none."""
    told = json.loads(cost("--tables", "10", "--schedule", "rate(1 hour)", "--region", "mars-1", "--json").stdout)
    runs = next(item for item in told["items"] if item["what"] == "runs of workers")
    assert runs["quantity"] == pytest.approx(10 * (730 / 12 + 730 * 0.25 + 31))
    assert any("mars-1" in line for line in told["assumptions"])
    shown = cost("--tables", "10").stdout
    assert re.search(r"About \$\d+\.\d\d a month", shown)
    assert "Not counted" in shown


@pytest.mark.parametrize(("options", "said"), [((), "--tables"), (("--tables", "1", "--schedule", "daily"), "daily")])
def test_what_can_not_be_reckoned_is_refused(options: tuple[str, ...], said: str) -> None:
    """With what to say instead."""
    result = cost(*options)
    assert result.exit_code == 2
    assert said in result.output
