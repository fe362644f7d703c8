"""`tidelog local`: the whole of tidelog on this machine, on a database of your own."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import asdict, replace
from datetime import UTC, datetime
from itertools import islice, pairwise
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer
from rich.console import Console

from tidelog.configuration import Configuration
from tidelog.credentials import Credentials
from tidelog.errors import InvalidSetting, TidelogError
from tidelog.failures import database_errors
from tidelog.history import History
from tidelog.selection import unmet
from tidelog.stores import Folder
from tidelog.windows import Snapshot
from tidelog_cli.address import ChunkMegabytes, ConfigFile, Database, Exclude, Tables, read_address
from tidelog_cli.backfill import send_again
from tidelog_cli.config import read_document
from tidelog_cli.output import console, counted, live_line, size
from tidelog_cli.progress import plans_under_way
from tidelog_cli.stack import Stack
from tidelog_cli.ticks import TableResult, TickFailedError, TickResult, Ticks, read_result, show_tick

if TYPE_CHECKING:
    from tidelog_sandbox.functions import Invocation
    from tidelog_sandbox.sandbox import Sandbox

app = typer.Typer(help="Run tidelog on this machine: the real template, on a local AWS.", no_args_is_help=True)

_RECHECK_SECONDS = 1
_STACK = "tidelog"  # as the sandbox calls it
_SOME_TABLES = 20


def _folder(text: str) -> Path:
    """Read the name of the folder that becomes the lake."""
    if not text:
        raise typer.BadParameter("it is empty: name a folder, such as mylake")
    if text.startswith("s3://"):
        raise typer.BadParameter(
            f"{text} is a bucket, and a local run writes to a folder: deploy the stack for a bucket"
        )
    return Path(text)


Lake = Annotated[
    Path,
    typer.Option(parser=_folder, metavar="DIR", help="Folder that becomes the lake: data/, ledger/ and schema/."),
]


@app.command()
def run(
    database: Database,
    lake: Lake,
    tables: Tables = None,
    exclude: Exclude = None,
    *,
    config: ConfigFile = None,
    chunk_megabytes: ChunkMegabytes = 512,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Run one tick and exit. Run it again and it goes on from where the folder is.

    Exit status 0 if every table was ingested, else 1: what failed is named on stderr, the others are done all the same.
    """
    more = {"ChunkMegabytes": f"{chunk_megabytes}"}
    with deployed(database, lake, tables, exclude, config=config, **more) as sandbox:
        result = run_tick(sandbox, "ingesting")
    if not (config and "include" in Configuration.parse(read_document(config)).lists):
        known = [
            *(each.table for each in result.tables),
            *(left["table"] for left in (*result.skipped, *result.refused)),
        ]
        result = replace(result, refused=(*result.refused, *map(msgspec.structs.asdict, unmet(tables or (), known))))
    if as_json:
        typer.echo(json.dumps({**asdict(result), "lake": str(lake)}, indent=1))
    else:
        screen = console()
        show_tick(screen, result)
        screen.print(f"the lake: {lake}")
    if not result.complete:
        raise typer.Exit(1)


@app.command()
def up(
    database: Database,
    lake: Lake,
    tables: Tables = None,
    exclude: Exclude = None,
    *,
    config: ConfigFile = None,
    chunk_megabytes: ChunkMegabytes = 512,
    schedule: Annotated[
        str, typer.Option(help="When a tick starts: rate(...) or cron(...) of EventBridge Scheduler.")
    ] = "rate(5 minutes)",
) -> None:
    """Keep running on the schedule until Ctrl-C, and say how to point aws or boto3 at it."""
    screen = console()
    more = {"StaleSeconds": _stale_seconds(schedule), "ChunkMegabytes": f"{chunk_megabytes}"}
    with deployed(database, lake, tables, exclude, schedule, config=config, **more) as sandbox:
        for name, value in sandbox.environment.items():
            screen.print(f"export {name}={value}")
        screen.print(f"export TIDELOG_STACK={_STACK}")
        screen.print('# aws sqs of version 1 heeds that only by --endpoint-url "$AWS_ENDPOINT_URL"')
        for name, value in sandbox.outputs.items():
            screen.print(f"# {name}: {value}")
        sandbox.on_invocation(_print_result)
        sandbox.start_alarms()
        sandbox.start_schedules()
        try:
            _print_emails(screen, sandbox)
        except KeyboardInterrupt:
            screen.print("stopping: runs under way are finished first")
            sandbox.stop_schedules()
            sandbox.stop_mappings()


@contextmanager
def deployed(
    database: str,
    lake: Path,
    tables: list[str] | None = None,
    exclude: list[str] | None = None,
    schedule: str = "rate(1 day)",
    *,
    config: Path | None = None,
    **more: str,
) -> Iterator[Sandbox]:
    """Deploy the template on this machine with its mappings live; `more` are further parameters of it.

    Raises:
        typer.BadParameter: the database's address can't be used.
        InvalidSetting: the configuration or the folder can't be used.
        AccessDenied, DatabaseUnreachable, DatabaseBusy: the database does not let anybody in.
    """
    from tidelog_sandbox.sandbox import Sandbox  # noqa: PLC0415 - it takes long to load, and --help needs none of it

    document = read_document(config) if config else None
    content, tls = read_address(database)
    try:
        lake.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InvalidSetting(
            "make the lake", lake, f"{error.strerror}", "Name a folder that you may write to"
        ) from error
    _look_at(msgspec.convert(content, Credentials), tls, lake)
    parameters = {
        "AdminEmail": "administrator@example.com",
        "Schedule": schedule,
        "IncludeTables": ",".join(tables or ["*"]),
        "ExcludeTables": ",".join(exclude or []),
        "DatabaseTls": tls,
        **more,
    }
    with ExitStack() as stack:
        with live_line("deploying the template on this machine"):
            sandbox = stack.enter_context(Sandbox(_template(), parameters=parameters, database=content, lake=lake))
        deployment = Stack(_STACK, sandbox.outputs, sandbox.client)
        if document is not None:
            deployment.configurations.write(document)
        _take_up_plans(deployment)
        sandbox.start_mappings()
        yield sandbox


def _look_at(credentials: Credentials, tls: str, lake: Path) -> None:
    """Connect once: an address that does not work is told at once, and not after a deployment.

    So is another database than the folder's: it may be the same after a restore, and only a person knows.
    """
    from tidelog.catalog import snapshot_query  # noqa: PLC0415 - the driver; --help needs none of it
    from tidelog.connection import connect  # noqa: PLC0415 - as above

    with database_errors("connect to", credentials), closing(connect(credentials, tls, lock_seconds=0)) as connection:
        [[answer]] = connection.run(snapshot_query())
    now, history, known = msgspec.json.decode(answer, type=Snapshot).database, History(Folder(lake)), list[str]()
    with suppress(TidelogError):  # What can't be read is told where it matters.
        for table in islice(history.tables(), _SOME_TABLES):
            was = head.state.database if (head := history.head(table)) else None
            if was and (was.system, was.oid) == (now.system, now.oid):
                return
            known += [was.name] if was else []
    if known:
        console(err=True).print(
            f"{lake} has tables of another database, {known[-1]}. Those that {now.name} has too begin a new timeline, "
            "and readers see the rows of both: for a database of its own name another folder.",
            style="yellow",
        )


def _take_up_plans(stack: Stack) -> None:
    """Send what an earlier process has left of large reads: its queue ended with it."""
    for progress in plans_under_way(stack.ledger):
        send_again(stack, progress)


def run_tick(sandbox: Sandbox, title: str) -> TickResult:
    """Run a tick with a live line; a scheduler that fails ends the command."""
    with live_line(title) as line:
        try:
            return Ticks(sandbox).run(line)
        except TickFailedError as error:
            console(err=True).print(f"tidelog: {error}", style="red")
            raise typer.Exit(1) from error


def _template() -> Path:
    import tidelog_sandbox  # noqa: PLC0415 - as above

    template = Path(tidelog_sandbox.__file__).parents[2] / "template.yaml"
    if not template.exists():
        raise typer.BadParameter(f"there is no {template}: run tidelog from a checkout of its repository")
    return template


def _print_result(invocation: Invocation) -> None:
    result = read_result(invocation)
    if result is None:
        if not invocation.succeeded:
            console(err=True).print(f"tick failed: {(invocation.error or {}).get('errorMessage')}", style="red")
        return
    if result.outcome in ("unchanged", "covered", "waiting"):
        return
    failed = result.outcome == "failed"
    console(err=failed).print(f"{datetime.now().astimezone():%H:%M:%S}  {_line(result)}")


def _stale_seconds(schedule: str) -> str:
    """Return three of the longest intervals to come, in whole minutes; half an hour at least, a week at most."""
    from tidelog_sandbox.expressions import occurrences  # noqa: PLC0415 - as above

    try:
        times = list(islice(occurrences(schedule, datetime.now(UTC), "UTC"), 10))
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--schedule") from error
    longest = max(((after - before).total_seconds() for before, after in pairwise(times)), default=0)
    return str(min(max(1800, ceil(3 * longest / 60) * 60), 7 * 86400))


def _print_emails(screen: Console, sandbox: Sandbox) -> None:
    """Print the subject of each email as it is sent, until interrupted; that all is well only where it was not."""
    seen, alarms = 0, set[str]()
    while True:
        for mail in sandbox.emails[seen:]:
            seen += 1
            kind, _, alarm = mail.subject.partition(": ")
            if kind == "ALARM":
                alarms.add(alarm)
            if kind != "OK" or alarm in alarms:
                screen.print(f"{datetime.now().astimezone():%H:%M:%S}  email: {mail.subject}")
        time.sleep(_RECHECK_SECONDS)


def _line(result: TableResult) -> str:
    if result.outcome == "failed":
        then = f"again in {result.again} s" if result.then == "retried" else "it lies in the dead letters"
        return f"{result.table}  failed, {then}: {result.reason}"
    if result.outcome == "planned":
        chunks = f"planned in {counted(result.chunks, 'chunk')}"
        return f"{result.table}  {chunks if result.chunks else 'nothing to read in chunks'}"
    number = f"increment {result.sequential_id}" if result.outcome == "ingested" else "snapshot"
    if result.chunk:
        number = f"chunk {result.chunk} of {result.chunks}"
    return f"{result.table}  {counted(result.rows, 'row')}  {size(result.bytes)}  {number}  {result.seconds:.2f} s"
