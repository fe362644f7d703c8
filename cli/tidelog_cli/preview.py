"""What would be ingested of a database, on the screen."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec
from msgspec.structs import asdict, replace
from rich.console import Console

from tidelog.advice import Advice
from tidelog.configuration import Configuration
from tidelog.credentials import Credentials
from tidelog.horizon import Horizon
from tidelog.limits import Limits
from tidelog.selection import Selection, unmet
from tidelog.surveying import Survey, Surveyed, survey
from tidelog_cli.address import read_address
from tidelog_cli.config import read_document
from tidelog_cli.output import console, counted, fitted, live_bar, size

_SHOWN_STATEMENTS = 4
_SHOWN_COLUMNS = 6
_HEADINGS = ("table", "key", "timestamps", "size", "rows, about", "first read", "how new rows are found")
_LEFT = ("table", "key", "timestamps", "how new rows are found")
_SPARE = ("first read", "rows, about", "timestamps", "key")


def preview(
    database: str, selection: Selection, config: Path | None, *, as_json: bool, time_bound: int, chunk: int
) -> bool:
    """Print what would be ingested; return whether all that is asked for can be.

    Args:
        database: the database's address.
        selection: which tables are asked for, where the configuration does not say.
        config: the configuration document.
        as_json: whether JSON is printed.
        time_bound: from how many MiB on a table is read through its timestamps.
        chunk: more MiB than this are read in chunks.

    Raises:
        InvalidSetting: the configuration or the database can't be used.
        DatabaseUnreachable, AccessDenied, DatabaseBusy: as they say.
    """
    configuration = Configuration.parse(read_document(config)) if config else Configuration()
    content, tls = read_address(database)
    credentials = msgspec.convert(content, Credentials)
    limits = Limits(
        look_back=0, time_bound_bytes=time_bound * 2**20, chunk_bytes=chunk * 2**20, failover_margin=0, fresh=0
    )
    with live_bar("looking at the tables") as progress:
        found = survey(
            credentials, tls, selection=selection, configuration=configuration, limits=limits, progress=progress
        )
    if "include" not in configuration.lists:
        known = [*(str(each.table) for each in found.tables), *(left.table for left in (*found.left, *found.refused))]
        found = replace(found, refused=(*found.refused, *unmet(selection.include, known)))
    if as_json:
        console().print(json.dumps(_as_json(found), indent=1))
    else:
        show(console(), found)
    return found.complete


def show(screen: Console, found: Survey) -> None:
    """Print a survey."""
    readable = [each for each in found.tables if each.found and each.strategy]
    if readable:
        rows = [_row(each) for each in readable]
        screen.print(fitted(_HEADINGS, rows, left=_LEFT, spare=_SPARE, screen=screen, prose=_HEADINGS[-1]))
    else:
        screen.print("There is no table to ingest.")
    obstacles = [(str(each.table), advice) for each in found.tables for advice in each.obstacles]
    _section(screen, "Can't be ingested as things stand", obstacles, style="red")
    _section(screen, "Refused", [(left.table, Advice(left.reason)) for left in found.refused], style="red")
    _section(
        screen, "Indexes that would help", [(str(each.table), each.advice) for each in found.tables if each.advice]
    )
    _section(
        screen, "Worth knowing", [(str(each.table), Advice(text)) for each in found.tables for text in each.remarks]
    )
    _section(screen, "Types", list(_types(found.tables)))
    _section(screen, "Left out", [(left.table, Advice(left.reason)) for left in found.left])
    server = found.server
    kind = "a standby" if server.standby else "a primary"
    screen.print(
        f"PostgreSQL {server.version}, {kind}; database {server.database}, read as {server.role}. "
        f"{_horizon(found.horizon)}",
    )
    total = sum(each.found.size for each in found.tables if each.found)
    failing = sum(bool(each.obstacles) for each in found.tables) + len(found.refused)
    screen.print(
        f"{counted(len(found.tables), 'table')} to ingest, {size(total)} on disk; "
        + (f"{failing} can't be." if failing else "all of them can be."),
        style="red" if failing else "green",
    )


def _row(each: Surveyed) -> tuple[str, ...]:
    assert each.found and each.strategy  # noqa: S101, PT018 - for the type
    rows = _rows(each)
    return (
        str(each.table),
        "\n".join(each.found.key) or "none",
        "\n".join(each.found.timestamp_columns) or "none",
        size(each.found.size),
        "?" if rows is None else f"{rows:,}",
        counted(each.chunks, "chunk") if each.chunks else "one run",
        f"{each.strategy.name}: {each.strategy.reason}",
    )


def _rows(each: Surveyed) -> int | None:
    """Return how many rows a table has, as the planner estimates; None where nobody knows."""
    leaves = each.found.leaves if each.found else ()
    return sum(leaf.rows for leaf in leaves) if all(leaf.rows >= 0 for leaf in leaves) else None


def _types(tables: Iterable[Surveyed]) -> Iterable[tuple[str, Advice]]:
    """Yield each remark about types once, with the tables and columns that it is about."""
    about: dict[str, list[str]] = {}
    for each in tables:
        for remark, columns in each.types:
            about.setdefault(remark, []).extend(f"{each.table}.{column}" for column in columns)
    for remark, named in about.items():
        more = len(named) - _SHOWN_COLUMNS
        yield remark, Advice(", ".join(named[:_SHOWN_COLUMNS]) + (f" and {more} more" if more > 0 else ""))


def _section(screen: Console, title: str, entries: Sequence[tuple[str, Advice]], style: str = "bold") -> None:
    """Print what there is to say under a heading, and the statements that are to be run on lines of their own."""
    if not entries:
        return
    screen.print(title, style=style)
    for subject, advice in entries:
        screen.print(f"  {subject}: {advice.reason}")
        for statement in advice.statements[:_SHOWN_STATEMENTS]:
            screen.print(f"      {statement}", style="cyan")
        if (more := len(advice.statements) - _SHOWN_STATEMENTS) > 0:
            screen.print(f"      and {more} more: --json has all")
    screen.print()


def _horizon(horizon: Horizon) -> str:
    if not horizon.held:
        return "Nobody holds the horizon."
    return f"The horizon is held by {horizon.who}. {horizon.remedy}"


def _as_json(found: Survey) -> dict[str, Any]:
    return {
        "server": msgspec.to_builtins(found.server),
        "horizon": {"holder": found.horizon.who, "remedy": found.horizon.remedy} if found.horizon.held else None,
        "complete": found.complete,
        "tables": [_table(each) for each in found.tables],
        "left_out": [asdict(left) for left in found.left],
        "refused": [asdict(left) for left in found.refused],
    }


def _table(each: Surveyed) -> dict[str, Any]:
    table, strategy = each.found, each.strategy
    return {
        "table": str(each.table),
        "obstacles": [asdict(advice) for advice in each.obstacles],
        "strategy": strategy.name if strategy else None,
        "reason": strategy.reason if strategy else None,
        "bytes": table.size if table else None,
        "rows": _rows(each) if table else None,
        "key": list(table.key) if table else None,
        "timestamp_columns": list(table.timestamp_columns) if table else None,
        "chunks": each.chunks,
        "index": asdict(each.advice) if each.advice else None,
        "remarks": list(each.remarks),
        "types": {remark: list(columns) for remark, columns in each.types},
    }
