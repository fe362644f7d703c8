"""`tidelog ddl`: statements with which a query engine reads a table in place."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

import typer

from tidelog.errors import InvalidSetting, UnknownColumn
from tidelog.lake import data_prefix
from tidelog.read import Lake
from tidelog.stores import Folder
from tidelog_cli.dialects import Spec
from tidelog_cli.engines import statements
from tidelog_cli.place import AnyLake, AnyStack, find_place

Engine = Literal["duckdb", "athena", "snowflake", "bigquery", "spark"]


def ddl(
    table: Annotated[str, typer.Argument(metavar="TABLE", help="schema.table, such as public.orders.")],
    engine: Annotated[Engine, typer.Option("--engine", help="What is to run them.")],
    stack: AnyStack = None,
    lake: AnyLake = None,
    *,
    key: Annotated[
        list[str] | None,
        typer.Option(
            "--key", metavar="COLUMN", help="What tells rows apart, where there is no primary key. May be repeated."
        ),
    ] = None,
    text: Annotated[
        list[str] | None,
        typer.Option("--text", metavar="COLUMN", help="A column that is to stay text. May be repeated."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the statements as a JSON array.")] = False,
) -> None:
    """Print the statements with which a query engine reads a table where it lies: its lines, and the latest versions.

    Nothing is copied. Columns have the types that the engine carries exactly; comments name those that stay text. A
    value that does not fit makes a query fail: name its column with --text. Deleted rows keep their last version.
    """
    store, _ = find_place(stack, lake)
    found = Lake(store).table(table)
    if isinstance(store, Folder) and engine != "duckdb":
        hint = "Name a bucket with --lake s3://… or --stack, or take --engine duckdb"
        raise InvalidSetting("write statements for", engine, f"it can't read the folder {store}", hint)
    document = found.schema()
    known = [column.name for column in document.columns]
    if unknown := [column for column in text or () if column not in known]:
        raise UnknownColumn("find", f"{found.name}.{unknown[0]}", f"its columns are {', '.join(known)}")
    if not known:
        raise InvalidSetting("write statements for", found.name, "it has no columns")
    root = f"{Path(str(store)).resolve()}/" if isinstance(store, Folder) else str(store)
    named = tuple(key or ())
    spec = Spec(
        table=found.name,
        place=root + data_prefix(found.name),
        columns=document.columns,
        key=found.key(document, named) if named else document.key,
        primary=not named,
        texts=frozenset(text or ()),
    )
    made = statements(engine, spec)
    typer.echo(json.dumps(made, indent=1) if as_json else "\n\n".join(f"{statement};" for statement in made))
