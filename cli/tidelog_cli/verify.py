"""`tidelog verify`: is the lake right?"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Callable
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from botocore.session import get_session
from rich.console import Console

from tidelog.credentials import Credentials, DatabaseSecret, iam_token
from tidelog.history import History
from tidelog.parameters import Parameters
from tidelog.stores import Store
from tidelog.tables import TableName
from tidelog.verification.verdict import Differing, Verified
from tidelog.verification.verifying import Verifying
from tidelog_cli.address import read_address
from tidelog_cli.output import console, counted, fitted, live_bar
from tidelog_cli.place import AnyLake, AnyStack, find_place
from tidelog_cli.stack import Stack

_SHOWN_KEYS, _SHOWN_FINDINGS, _MOST_KEYS = 20, 20, 10_000
_HOW = {"missing": "is not in the lake", "different": "is otherwise in the lake"}
_WHY = {
    "": "",
    "hidden": ", hidden by a bound in time",
    "outdated": ", from before the table was altered",
    "supplied": ", as a program has supplied it",
}


def verify(
    tables: Annotated[
        list[str] | None, typer.Argument(metavar="[TABLE]...", help="schema.table; all tables where none is named.")
    ] = None,
    *,
    stack: AnyStack = None,
    lake: AnyLake = None,
    database: Annotated[
        str | None,
        typer.Option(
            "--database",
            envvar="TIDELOG_DATABASE",
            metavar="URL",
            help="postgresql://user@host:port/db, as of tidelog local run. Without it the stack's secret is read.",
        ),
    ] = None,
    ledger_only: Annotated[
        bool, typer.Option("--ledger-only", help="Leave the database alone: only the lake is held against itself.")
    ] = False,
    work: Annotated[
        Path | None,
        typer.Option(
            file_okay=False,
            metavar="DIR",
            help="Keeps what is done so far: a verification that was killed goes on from there with the same DIR.",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Prove that the lake is right: that its ledger adds up, its objects are as written, and its rows are the table's.

    Exit status 0 if all of it is proved, else 1: what is wrong is named, and what to do about it.
    """
    store, found = find_place(stack, lake)
    credentials, tls, place = _database(found, database, ledger_only=ledger_only)
    parameters = Parameters(found.client("ssm"), found.outputs["ParameterPrefix"]) if found else None
    with ExitStack() as ended:
        folder = work or Path(ended.enter_context(tempfile.TemporaryDirectory(prefix="tidelog-verify-")))
        bars = _Bars()
        ended.callback(bars.close)
        verifying = Verifying(
            store,
            credentials,
            tls,
            work=folder / f"tidelog-verify-{hashlib.sha256(f'{store} {place}'.encode()).hexdigest()[:16]}",
            tell=bars.tell,
            most_keys=_MOST_KEYS if as_json else _SHOWN_KEYS,
        )
        ended.enter_context(closing(verifying))
        done = []
        for table in _wanted(store, parameters, tables):
            bars.begin(str(table))
            done.append(verifying.verify(table, partial(parameters.read, table) if parameters else lambda: None))
        verifying.clear()
    if as_json:
        answer = {"right": all(each.is_right for each in done), "tables": [_as_json(each) for each in done]}
        typer.echo(json.dumps(answer, indent=1))
    else:
        _show(console(), done)
    if not all(each.is_right for each in done):
        raise typer.Exit(1)


class _Bars:
    """A bar for each table, one after another."""

    def __init__(self) -> None:
        self._open = ExitStack()
        self._bar: Callable[[int, int, str], object] = lambda *_: None

    def begin(self, table: str) -> None:
        """Begin with a table."""
        self.close()
        self._bar = self._open.enter_context(live_bar(table))

    def tell(self, what: str, done: int, whole: int) -> None:
        """Show how far it is."""
        self._bar(done, max(done, whole), f"{done:,}{f' of {whole:,}' if whole else ''} {what}")

    def close(self) -> None:
        """End the last one."""
        self._open.close()


def _wanted(store: Store, parameters: Parameters | None, tables: list[str] | None) -> list[TableName]:
    """Return the tables that are named, or all that have a ledger or a summary."""
    known = set(History(store).tables())
    if not tables:
        summaries = parameters.read_all(lenient=True) if parameters else ()
        return sorted(known | {table for table, summary in summaries if not summary.is_blank})
    wanted = []
    for text in tables:
        try:
            wanted.append(TableName.parse(text))
        except ValueError as error:
            raise typer.BadParameter(str(error), param_hint="TABLE") from error
        if wanted[-1] not in known:
            reason = f"there is no ledger of {wanted[-1]} in {store}: tidelog status shows which tables there are"
            raise typer.BadParameter(reason, param_hint="TABLE")
    return wanted


def _database(
    stack: Stack | None, database: str | None, *, ledger_only: bool
) -> tuple[Callable[[], Credentials] | None, str, str]:
    """Return what reads the credentials, the kind of TLS, and which database it is in words."""
    if ledger_only:
        return None, "disable", ""
    if database:
        content, tls = read_address(database)
        found = msgspec.convert(content, Credentials)
        return lambda: found, tls, str(found)
    if not stack:
        reason = "name the database with --database, or leave it alone with --ledger-only"
        raise typer.BadParameter(reason, param_hint="--database")
    secret = stack.parameters["DatabaseSecretArn"]
    token = iam_token(get_session()) if stack.parameters.get("DatabaseIamUser") else None
    return DatabaseSecret(stack.client("secretsmanager"), secret, token), stack.parameters["DatabaseTls"], secret


def _show(screen: Console, done: list[Verified]) -> None:
    """Print what was found, and what to do about it."""
    headings = ("table", "rows compared", "differing", "pending", "gone", "ledger", "verdict")
    rows = [_row(each) for each in done]
    screen.print(fitted(headings, rows, left=("table",), spare=("ledger", "gone", "pending"), screen=screen))
    for each in done:
        for finding in each.findings[:_SHOWN_FINDINGS]:
            screen.print(str(finding))
        if (more := len(each.findings) - _SHOWN_FINDINGS) > 0:
            screen.print(f"{each.table}: {more:,} more findings: see --json")
        for key in each.keys:
            screen.print(f"{each.table}: key {_key(key)}")
        if not each.keyed and each.rows is not None:
            screen.print(f"{each.table}: it has no primary key, so each row was looked for among all lines")
        for remedy in each.remedies():
            screen.print(f"{each.table}: {remedy}")
    if all(each.is_right for each in done):
        screen.print("All that was looked at is right.")


def _row(found: Verified) -> tuple[str, ...]:
    ledger = f"{counted(found.events, 'event')}, {counted(found.segments, 'segment')}"
    if found.rows is None:
        return (found.table, "", "", "", "", ledger, found.verdict)
    gone = f"{found.gone:,}" if found.keyed else ""
    numbers = (f"{found.rows:,}", f"{found.differing:,}", f"{found.pending:,}", gone)
    return (found.table, *numbers, ledger, found.verdict)


def _key(key: Differing) -> str:
    where = f": {key.where}" if key.where else ""
    return f"{key.key} {_HOW[key.how]}{_WHY[key.cause]}{where}"


def _as_json(found: Verified) -> dict[str, Any]:
    return {
        "table": found.table,
        "right": found.is_right,
        "verdict": found.verdict,
        "offset": found.offset,
        "events": found.events,
        "segments": found.segments,
        "lines": found.lines,
        "rows": found.rows,
        "differing": found.differing,
        "hidden": found.causes.get("hidden", 0),
        "outdated": found.causes.get("outdated", 0),
        "supplied": found.causes.get("supplied", 0),
        "pending": found.pending,
        "gone": found.gone if found.keyed else None,
        "findings": msgspec.to_builtins(found.findings),
        "keys": msgspec.to_builtins(found.keys),
        "reason": found.reason or None,
        "remedies": [*found.remedies()],
    }
