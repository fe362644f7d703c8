"""`tidelog config`: the configuration document, checked, pushed and shown."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from tidelog.configuration import KEYS, TABLE_KEYS, Configuration, Value
from tidelog.configurations import Document
from tidelog.errors import InvalidSetting
from tidelog_cli.output import console, fitted
from tidelog_cli.stack import StackName, find_configurations

app = typer.Typer(
    help="The configuration document: which tables are taken, and how each is read.", no_args_is_help=True
)

File = Annotated[Path, typer.Argument(metavar="FILE", exists=True, dir_okay=False, help="The document, in TOML.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
_PARAMETERS = {"include": "IncludeTables", "exclude": "ExcludeTables"}


@app.command()
def check(file: File, *, as_json: AsJson = False) -> None:
    """Check a document and say what it means; status 1 if it can't be used."""
    _print(Configuration.parse(read_document(file)), as_json=as_json)


@app.command()
def push(file: File, stack: StackName, *, as_json: AsJson = False) -> None:
    """Check a document and write it to Parameter Store, before or after the stack is deployed.

    The next tick goes by it. Prints what has changed.
    """
    text = read_document(file)
    configurations, deployed = find_configurations(stack)
    before = configurations.read()
    if before and before.text == text:
        version, changes = before.version, []
    else:
        changes = _changes(before, Configuration.parse(text))
        version = configurations.write(text)
    if as_json:
        typer.echo(json.dumps({"version": version, "changes": changes}, indent=1))
        return
    screen = console()
    for line in changes:
        screen.print(line)
    written = before is None or before.version != version
    screen.print(f"{'wrote' if written else 'nothing has changed since'} version {version}")
    if not deployed:
        _tell_of_none(stack, "this is for when there is")


@app.command()
def show(stack: StackName, *, as_json: AsJson = False) -> None:
    """Show the document of a stack; status 1 if it can't be used."""
    configurations, deployed = find_configurations(stack)
    document = configurations.read()
    if not deployed:
        _tell_of_none(stack, "what is shown is for when there is" if document else "is the name right?")
    if document is None and not as_json:
        console().print("Nothing is configured: all is as the stack's parameters say.")
        return
    if document and not as_json:
        console().print(f"version {document.version}")
    _print(document.read() if document else Configuration(), as_json=as_json)


def _tell_of_none(stack: str, more: str) -> None:
    console(err=True).print(f"There is no stack {stack} here yet: {more}.", style="yellow")


def read_document(file: Path) -> str:
    """Return the text of a document that can be used.

    Raises:
        InvalidSetting: it can't be.
    """
    try:
        text = file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        reason = f"it is not UTF-8 text: {error.reason} at byte {error.start}"
        raise InvalidSetting("read", file, reason, "Save it as UTF-8") from error
    Configuration.parse(text, subject=str(file))
    return text


def _changes(before: Document | None, after: Configuration) -> list[str]:
    """Say what a new document changes."""
    try:
        return after.difference(before.read() if before else Configuration())
    except InvalidSetting as error:
        return [f"the version before could not be used: {error.what}"]


def _print(configuration: Configuration, *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(_as_json(configuration), indent=1, ensure_ascii=False))
        return
    screen = console()
    for key in KEYS:
        said = configuration.lists.get(key)
        words = f"as {_PARAMETERS[key]} of the stack" if said is None else _words(said)
        screen.print(f"{key}: {words}")
    _print_sections(screen, configuration)


def _print_sections(screen: Console, configuration: Configuration) -> None:
    """Print a line per section, and only the keys that any of them sets."""
    used = [key for key in TABLE_KEYS if any(key in section.values for section in configuration.tables)]
    rows = [(section.pattern, *(_words(section.values.get(key)) for key in used)) for section in configuration.tables]
    if rows:
        headings = ("tables", *used)
        screen.print(fitted(headings, rows, left=headings, screen=screen))
    if len(rows) > 1:
        screen.print("Of several that meet a table, later ones win key by key.")


def _words(value: Value | None) -> str:
    if isinstance(value, tuple):
        return ", ".join(value) or "none"
    return "" if value is None else str(value)


def _as_json(configuration: Configuration) -> dict[str, Any]:
    tables = {section.pattern: dict(section.values) for section in configuration.tables}
    lists = {key: configuration.lists.get(key) for key in KEYS}  # None: the stack's parameter counts
    return {**lists, "tables": tables, "version": configuration.version or None}
