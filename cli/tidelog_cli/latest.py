"""`tidelog latest`: a table as it is now in the lake, in one file."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from tidelog.errors import InvalidSetting
from tidelog.read import Lake
from tidelog_cli.export import FORMATS, Format, export
from tidelog_cli.output import console, counted, live_bar, size
from tidelog_cli.place import AnyLake, AnyStack, find_place


def latest(
    table: Annotated[str, typer.Argument(metavar="TABLE", help="schema.table, such as public.orders.")],
    to: Annotated[Path, typer.Option("--to", metavar="FILE", dir_okay=False, help="Ends in .parquet, .csv or .jsonl.")],
    stack: AnyStack = None,
    lake: AnyLake = None,
    key: Annotated[
        list[str] | None,
        typer.Option(
            "--key", metavar="COLUMN", help="What tells rows apart, where there is no primary key. May be repeated."
        ),
    ] = None,
    *,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the file if it is there.")] = False,
    memory_megabytes: Annotated[
        int,
        typer.Option(min=128, metavar="MB", help="Memory for the work; beyond it, the disk is used."),
    ] = 1024,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Write a table as it is now in the lake: the latest version of every row. No value is rounded.

    A deleted row keeps its last version in the lake, so it is in the file; so is one under each key that it had.

    CSV and JSON Lines hold each value as the lake does. Parquet has types; a column that those can't carry exactly is
    text, and a remark on stderr says which and why.
    """
    form = _format(to)
    if to.exists() and not force:
        raise InvalidSetting("write", to, "it is there already", "Name another file, or overwrite it with --force")
    if not to.parent.is_dir():
        raise InvalidSetting("write", to, f"there is no folder {to.parent}", "Create it first")
    store, _ = find_place(stack, lake)
    found = Lake(store).table(table)
    with live_bar(f"{found.name}") as tell:
        done = export(found, to, form, key or (), megabytes=memory_megabytes, tell=tell)
    errors = console(err=True)
    for column in done.columns:
        if column.remark:
            errors.print(f"{column.name} is text: {column.remark}", style="yellow")
    if done.keyless:
        errors.print(f"left out, as of before there was this key: {counted(done.keyless, 'line')}", style="yellow")
    if as_json:
        typer.echo(json.dumps({"table": str(found.name), "file": str(to), **asdict(done)}, indent=1))
    else:
        console().print(
            f"{to}: {counted(done.rows, 'row')}, {size(done.bytes)}, from {counted(done.lines, 'line')} in "
            f"{counted(done.segments, 'segment')}",
        )


def _format(to: Path) -> Format:
    for form in FORMATS:
        if to.suffix == f".{form}":
            return form
    raise typer.BadParameter("the file's name has to end in .parquet, .csv or .jsonl", param_hint="--to")
