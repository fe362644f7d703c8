"""`tidelog status`: how all stands, at a glance or as it changes."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from typing import Annotated, Any

import msgspec
import typer
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from tidelog.letters import Failure
from tidelog.plans import OpenPlan
from tidelog.state import Lack
from tidelog_cli.output import console, counted, duration, fitted, live_spinner, size
from tidelog_cli.place import AnyLake, AnyStack, find_place
from tidelog_cli.queues import QueueDepth
from tidelog_cli.survey import Overview, Standing, Survey

_REDRAWN_SECONDS = 2.0
_STALE_SECONDS = 1800
_NOT_YET: dict[Lack | None, str] = {
    None: "",
    "cancelled": "no: cancelled",
    "under way": "when it is read",
    "hidden": "the next sweep",
    "above": "the next run",
}
_HEADINGS = (
    "table",
    "how",
    "increments",
    "latest timestamp",
    "fresh as of",
    "complete up to",
    "rows, 24 h",
    "bytes, 24 h",
    "under way",
    "last failure",
)
_LEFT = ("table", "how", "under way", "last failure")
_SPARE = ("increments", "bytes, 24 h", "how", "latest timestamp", "last failure", "rows, 24 h")


def status(
    stack: AnyStack = None,
    lake: AnyLake = None,
    *,
    watch: Annotated[bool, typer.Option("--watch", help="Show it again every two seconds, until Ctrl-C.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON; with --watch a line of it each time.")] = False,
) -> None:
    """Show how all stands: ticks, queues, the horizon; and of each table what came lately and what is under way.

    Times are UTC. Of a lake without its stack there are only the tables. Where there is little room, columns are left
    out; --json has all.
    """
    store, found = find_place(stack, lake)
    survey = Survey(store, found)
    name = found.name if found else ""
    stale = float(found.parameters.get("StaleSeconds", _STALE_SECONDS)) if found else 0.0
    screen = console()
    if watch:
        with suppress(KeyboardInterrupt):
            if as_json:
                for overview in _again_and_again(survey):
                    typer.echo(json.dumps(as_record(overview)))
            else:
                _draw((render(each, screen, name, stale) for each in _again_and_again(survey)), screen)
        return
    overview = _asked(survey)
    if as_json:
        typer.echo(json.dumps(as_record(overview), indent=1))
    else:
        screen.print(render(overview, screen, name, stale))


def _asked(survey: Survey) -> Overview:
    with live_spinner("asking how all stands"):  # The scheduler may have to start for it.
        return survey.take()


def _again_and_again(survey: Survey) -> Iterator[Overview]:
    yield _asked(survey)
    while True:
        time.sleep(_REDRAWN_SECONDS)
        yield survey.take()


def _draw(pictures: Iterator[RenderableType], screen: Console) -> None:
    """Draw one over the other on a terminal; elsewhere one below the other."""
    if not screen.is_terminal:
        for picture in pictures:
            screen.print(picture)
        return
    with Live(next(pictures), console=screen, auto_refresh=False) as live:
        for picture in pictures:
            live.update(picture, refresh=True)


def render(overview: Overview, screen: Console, stack: str, stale: float) -> RenderableType:
    """Return an overview as it looks on a screen."""
    parts: list[RenderableType] = list(_lines(overview, stack, stale)) if stack else []
    if overview.tables:
        rows = [_row(each, overview.at) for each in overview.tables]
        table = fitted(_HEADINGS, rows, left=_LEFT, spare=_SPARE, screen=screen, prose="last failure")
        parts.append(table)
        if not any(column.header == "last failure" for column in table.columns):
            parts += [Text(f"{each.table}: {_failure(each, overview.at)}") for each in overview.tables if each.failure]
    else:
        parts.append(Text("No table was ingested yet: the first tick does that."))
    parts += [Text(f"{each.table}: {each.fault}", style="red") for each in overview.tables if each.fault]
    if "failures" in overview.unknown:
        parts.append(_unknown("last failures", overview.unknown["failures"]))
    return Group(*parts)


def _lines(overview: Overview, stack: str, stale: float) -> Iterator[Text]:
    """Return what there is to say of the stack itself."""
    tick, unknown = overview.tick, overview.unknown
    if tick:
        age = _seconds(tick.at, overview.at)
        idle = f", {tick.unchanged:,} of them unchanged" * bool(tick.unchanged)
        refused = f"; {tick.refused} refused" * bool(tick.refused)
        words = f"{duration(age)} ago, of {counted(tick.tables, 'table')}{idle}" + refused
        yield _line("last tick", words, bad=age >= stale or tick.refused > 0)
    else:
        yield _unknown("last tick", unknown["tick"]) if "tick" in unknown else _line("last tick", "none yet", bad=True)
    for name in ("work", "backfill"):
        if depth := overview.queues.get(name):
            yield _line(f"{name} queue", _depth(depth))
    for name, hint in (
        ("dead_letters", f"tidelog dead-letters list --stack {stack}"),
        ("missed_ticks", "see the scheduler's log"),
    ):
        if depth := overview.queues.get(name):
            yield _line(name.replace("_", " "), f"{depth.all}: {hint}" if depth.all else "none", bad=depth.all > 0)
    if "horizon" in unknown:
        yield _unknown("horizon", unknown["horizon"])
    elif overview.horizon:
        held, horizon = duration(overview.horizon["seconds"]), overview.horizon
        yield _line("horizon", f"held for {held} by {horizon['holder']}. {horizon['remedy']}")
    else:
        yield _line("horizon", "nobody holds it")
    for name in ("work", "backfill", "dead_letters", "missed_ticks"):
        if name in unknown:
            yield _unknown(name.replace("_", " "), unknown[name])


def _line(name: str, words: str, *, bad: bool = False) -> Text:
    return Text.assemble((f"{name:<16}", "bold"), (words, "red" if bad else ""))


def _unknown(name: str, why: str) -> Text:
    return Text.assemble((f"{name:<16}", "bold"), (f"not known: {why}", "yellow"))


def _depth(depth: QueueDepth) -> str:
    if not depth.all:
        return "empty"
    oldest = "" if depth.oldest is None else f", the oldest for {duration(depth.oldest)}"
    return f"{depth.waiting:,} waiting, {depth.in_flight:,} in flight{oldest}"


def _row(standing: Standing, now: datetime) -> tuple[str, ...]:
    state = standing.state
    if not state.offset and not standing.fresh:
        return (str(standing.table), "", "", "", "", "not read yet", "", "", "", _failure(standing, now))
    return (
        str(standing.table),
        standing.strategy,
        f"{state.sequential_id:,}",
        _time(state.timestamp, now),
        _time(standing.seen or standing.fresh, now),
        _time(standing.complete, now) or _NOT_YET[standing.lacks],
        f"{standing.rows:,}",
        size(standing.bytes),
        ", ".join(map(_plan, standing.plans)),
        _failure(standing, now),
    )


def _plan(plan: OpenPlan) -> str:
    return f"{plan.kind} {plan.done_chunks:,}/{plan.chunks:,}"


def _failure(standing: Standing, now: datetime) -> str:
    failure = standing.failure
    if failure is None:
        return ""
    then = "dead letter" if standing.dead else "read since" if _overcome(standing, failure) else "tried again"
    return f"{failure.error} {duration(_seconds(failure.failed_at, now))} ago, {then}"


def _overcome(standing: Standing, failure: Failure) -> bool:
    """Say whether the table was read after it, as far as that is known."""
    return bool(standing.fresh) and datetime.fromisoformat(str(standing.fresh)) > datetime.fromisoformat(
        failure.failed_at
    )


def _time(text: str | None, now: datetime) -> str:
    """Return a moment in UTC as shortly as a person can read it; what is none as it is, such as infinity."""
    if not text:
        return ""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return text
    moment = moment.astimezone(UTC) if moment.tzinfo else moment
    return f"{moment:%H:%M:%S}" if moment.date() == now.date() else f"{moment:%Y-%m-%d %H:%M}"


def _seconds(since: str, now: datetime) -> float:
    return max(0.0, (now - datetime.fromisoformat(since)).total_seconds())


def as_record(overview: Overview) -> dict[str, Any]:
    """Return an overview for JSON."""
    tick = overview.tick
    tables = [_table(each) for each in overview.tables]
    if not overview.queues and not overview.unknown.keys() - {"failures"}:  # of a lake without its stack
        return {"at": overview.at.isoformat(timespec="seconds"), "tables": tables}
    return {
        "at": overview.at.isoformat(timespec="seconds"),
        "tick": msgspec.structs.asdict(tick) | {"seconds": round(_seconds(tick.at, overview.at))} if tick else None,
        "queues": {
            name: {"waiting": depth.waiting, "in_flight": depth.in_flight, "oldest_seconds": depth.oldest}
            for name, depth in overview.queues.items()
        },
        "horizon": overview.horizon,
        "unknown": overview.unknown,
        "tables": tables,
    }


def _table(standing: Standing) -> dict[str, Any]:
    state, failure = standing.state, standing.failure
    return {
        "table": str(standing.table),
        "strategy": standing.strategy or None,
        "offset": state.offset,
        "timeline": state.timeline,
        "sequential_id": state.sequential_id,
        "timestamp": state.timestamp,
        "fresh_as_of": standing.seen or standing.fresh,
        "complete_at": standing.complete,
        "lacks": standing.lacks,
        "rows": state.rows,
        "bytes": state.bytes,
        "rows_last_day": standing.rows,
        "bytes_last_day": standing.bytes,
        "under_way": [
            {"plan": f"{standing.table}/{plan.number}", "kind": plan.kind, "chunks": plan.chunks}
            | {"done_chunks": plan.done_chunks, "bytes": plan.bytes, "done_bytes": plan.done_bytes}
            for plan in standing.plans
        ],
        "last_failure": msgspec.structs.asdict(failure) | {"dead_letter": standing.dead} if failure else None,
        "fault": standing.fault or None,
    }
