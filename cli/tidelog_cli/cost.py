"""`tidelog cost`: dollars a month, item by item, of a stack, of a lake, or before anything is deployed."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime, timedelta
from itertools import takewhile
from typing import Annotated

import typer
from rich.console import Console

from tidelog.failures import store_errors
from tidelog.history import History
from tidelog_cli.costs import HOURS, LOOKS, Activity, Item, Setup, assumptions, bill, not_counted
from tidelog_cli.growth import WINDOW, growth_of
from tidelog_cli.output import console, duration, fitted, live_count
from tidelog_cli.place import AnyLake, AnyStack, find_place
from tidelog_cli.prices import CHECKED, PRICES, US_EAST_1
from tidelog_cli.stack import Stack

_SCHEDULE, _SWEEPS = "rate(5 minutes)", "rate(1 day)"
_SHORT = 86400.0


def cost(
    stack: AnyStack = None,
    lake: AnyLake = None,
    *,
    tables: Annotated[int | None, typer.Option(min=0, help="How many tables. Default: those of the lake.")] = None,
    schedule: Annotated[
        str | None, typer.Option(help="When a tick starts. Default: the stack's schedule, or rate(5 minutes).")
    ] = None,
    busy: Annotated[
        float, typer.Option(min=0, max=100, help="Without a lake: percent of tables with new rows at a tick.")
    ] = 25,
    gigabytes: Annotated[
        float, typer.Option(min=0, help="Without a lake: gigabytes that are written a month, compressed.")
    ] = 1,
    region: Annotated[str | None, typer.Option(help="Whose prices count. Default: the stack's, or us-east-1.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say what a stack costs by the month, and what that rests on.

    With --stack or --lake from what the ledgers say of the last week, and CloudWatch of the run times; with --tables
    alone before anything is deployed. What AWS gives for free each month is not taken off.
    """
    if not (stack or lake) and tables is None:
        said = "name a stack with --stack or a lake with --lake, or say how many tables there will be with --tables"
        raise typer.BadParameter(said, param_hint="--stack")
    known = _looked_up(stack, lake) if stack or lake else _guessed(busy, gigabytes)
    given = known.parameters
    activity = replace(
        known.activity,
        tables=known.activity.tables if tables is None else tables,
        ticks=_a_month(schedule or given.get("Schedule", _SCHEDULE)),
        sweeps=_a_month(given.get("SweepSchedule", _SWEEPS)),
        looks=int(given.get("CertainLookTicks", LOOKS)),
    )
    if known.share is not None:
        activity = replace(activity, segments=activity.tables * activity.ticks * known.share)
    setup = Setup(
        **{
            name: int(given[parameter])
            for name, parameter in (
                ("memory", "WorkerMemory"),
                ("workers", "WorkConcurrency"),
                ("log_days", "LogRetentionDays"),
            )
            if parameter in given
        }
    )
    region = region or known.region
    prices = PRICES.get(region, US_EAST_1)
    priced = f"list prices of {region if region in PRICES else 'us-east-1'} as published in {CHECKED}, from memory"
    if region not in PRICES:
        priced += f": those of {region} are not known here, and differ by some tenths"
    items = bill(activity, setup, prices)
    rests_on = (*assumptions(activity, setup), *known.notes, priced)
    left = not_counted(prices, in_vpc=bool(given.get("SubnetIds")))
    if as_json:
        total = sum(item.dollars for item in items)
        bought = [{**asdict(item), "dollars": round(item.dollars, 6)} for item in items]
        typer.echo(
            json.dumps(
                {"dollars": round(total, 2), "items": bought, "assumptions": rests_on, "not_counted": left}, indent=1
            )
        )
    else:
        _show(console(), items, rests_on, left)


@dataclass(frozen=True, slots=True)
class _Known:
    """What is known of a stack or a lake; `share` of the tables are written at a tick, where the lake does not tell."""

    activity: Activity
    notes: tuple[str, ...]
    parameters: Mapping[str, str] = field(default_factory=dict)
    region: str = "us-east-1"
    share: float | None = None


def _guessed(busy: float, gigabytes: float) -> _Known:
    note = f"{busy:g} % of the tables have new rows at a tick, {gigabytes:g} GB a month"
    note += ": --busy and --gigabytes say otherwise"
    return _Known(Activity(0, 0, 0, 0, gigabytes * 1e9), (note,), share=busy / 100)


def _looked_up(stack: str | None, lake: str | None) -> _Known:
    """Return what the ledgers, the stack and CloudWatch say."""
    store, deployed = find_place(stack, lake)
    now = datetime.now(UTC)
    with live_count("reading ledgers of tables") as progress:
        grown = growth_of(History(store), now, progress)
    activity = Activity(
        tables=grown.tables,
        ticks=0,
        sweeps=0,
        segments=grown.a_month(grown.events, HOURS),
        bytes=grown.a_month(grown.bytes, HOURS),
        stored=grown.stored,
        events=grown.all_events,
    )
    notes = [f"what was written is that of the last {duration(grown.seconds)}, as the ledgers say, taken for a month"]
    if grown.seconds < _SHORT:
        notes.append("that is less than a day: ask again later")
    if deployed is None:
        return _Known(activity, (*notes, f"the schedule is {_SCHEDULE}, unless --schedule says otherwise"))
    run, tick = (_measured(deployed, name, now) for name in ("WorkerFunction", "SchedulerFunction"))
    activity = replace(activity, run_seconds=run, tick_seconds=tick)
    return _Known(activity, tuple(notes), deployed.parameters, deployed.client("s3").meta.region_name)


def _measured(stack: Stack, function: str, now: datetime) -> float | None:
    """Return the seconds that an invocation took on average in the last days; None where CloudWatch knows of none."""
    with store_errors("read the durations of", stack.outputs[function]):
        found = stack.client("cloudwatch").get_metric_statistics(
            Namespace="AWS/Lambda",
            MetricName="Duration",
            Dimensions=[{"Name": "FunctionName", "Value": stack.outputs[function]}],
            StartTime=now - WINDOW,
            EndTime=now + timedelta(minutes=1),
            Period=86400,
            Statistics=["Sum", "SampleCount"],
        )["Datapoints"]
    count = sum(each["SampleCount"] for each in found)
    return sum(each["Sum"] for each in found) / count / 1000 if count else None


def _a_month(schedule: str) -> int:
    """Return how often a schedule starts something in a month."""
    from tidelog_sandbox.expressions import occurrences  # noqa: PLC0415 - the sandbox takes long to load

    begin = datetime(2026, 1, 1, tzinfo=UTC)
    try:
        times = occurrences(schedule, begin)
        return sum(1 for _ in takewhile(lambda at: at < begin + timedelta(hours=HOURS), times))
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--schedule") from error


def _show(screen: Console, items: Sequence[Item], said: Iterable[str], left: Iterable[str]) -> None:
    rows = [(item.service, item.what, _amount(item.quantity), _price(item), _money(item.dollars)) for item in items]
    total = sum(item.dollars for item in items)
    headings = ("service", "for", "a month", "list price", "dollars a month")
    rows.append(("", "", "", "", _money(total)))
    screen.print(fitted(headings, rows, left=("service", "for"), spare=("list price",), screen=screen, prose="for"))
    for title, lines in (("This rests on", said), ("Not counted", left)):
        screen.print(title, style="bold")
        for line in lines:
            screen.print(f"  - {line}")
    screen.print(f"About ${total:,.2f} a month.", style="bold")


def _amount(quantity: float) -> str:
    return f"{quantity:,.0f}" if quantity >= 100 or quantity == int(quantity) else f"{quantity:,.2f}"


def _price(item: Item) -> str:
    if not item.price:
        return "free"
    text = f"${item.price:,.4f}".rstrip("0")
    whole, _, digits = text.partition(".")
    return f"{whole}.{digits:0<2}" + (f" a {item.unit}" if item.unit else "")


def _money(dollars: float) -> str:
    return "0" if not dollars else f"{dollars:,.2f}" if dollars >= 0.005 else "< 0.01"
