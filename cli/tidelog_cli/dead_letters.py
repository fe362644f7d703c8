"""`tidelog dead-letters`: messages that could not be worked off: look at them, send them back, drop them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import msgspec
import typer
from rich.console import Console

from tidelog.deadletters import DeadLetters, Letter
from tidelog.errors import InvalidMessage
from tidelog.messages import Ingest, decode
from tidelog.tables import TableName
from tidelog_cli.output import console, counted, fitted, live_count
from tidelog_cli.stack import Stack, StackName

app = typer.Typer(
    help="Messages that could not be worked off: look at them, send them back, drop them.", no_args_is_help=True
)

_SHORT = 8
_WHY = 64
_KILLED = "See the worker's log; raise WorkerMemory if it ran out of memory"

LetterId = Annotated[
    str, typer.Argument(metavar="ID", help="Id of the letter, as `list` shows it; its beginning is enough.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Table = Annotated[str | None, typer.Option("--table", metavar="TABLE", help="Only those of one table: schema.table.")]


@app.command("list")
def list_letters(stack: StackName, table: Table = None, *, as_json: AsJson = False) -> None:
    """List what lies in the dead letters, the oldest first. Nothing is changed."""
    if as_json:
        letters = _sorted(Stack.find(stack).dead_letters, table)
        typer.echo(json.dumps([_as_json(letter) for letter in letters], indent=1))
    else:
        print_letters(console(), Stack.find(stack), table)


def print_letters(screen: Console, stack: Stack, table: str | None = None) -> None:
    """Print the dead letters of a stack as a table."""
    dead_letters = stack.dead_letters
    letters = _sorted(dead_letters, table)
    if not letters:
        screen.print("The dead letters are empty." if table is None else f"No dead letter of {table}.")
    else:
        now = datetime.now(UTC)
        headings = ("id", "table", "error", "what to do", "tries", "age")
        rows, left = [_row(letter, now) for letter in letters], headings[:4]
        screen.print(fitted(headings, rows, left=left, spare=("tries",), screen=screen, prose="what to do"))
        screen.print(f"tidelog dead-letters show ID --stack {stack.name}  says why, and the whole of it.")
    if table is None and (unseen := dead_letters.count() - len(letters)) > 0:
        screen.print(
            f"{unseen} more are not shown: somebody looks at them, or they wait behind ten of the same table. "
            "Send those back or drop them first.",
        )


@app.command()
def show(letter_id: LetterId, stack: StackName, *, as_json: AsJson = False) -> None:
    """Show one letter: what failed, why, what to do, and the message itself."""
    with _found(Stack.find(stack).dead_letters, letter_id) as letter:
        if as_json:
            typer.echo(json.dumps(_as_json(letter), indent=1))
            return
        screen = console()
        for name, value in _lines(letter):
            screen.print(f"{name:<12}{value}")


@app.command()
def redrive(
    stack: StackName,
    table: Table = None,
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be sent back.")] = False,
    as_json: AsJson = False,
) -> None:
    """Send letters back to the queues they came from: all, or those of one table. Mend the cause first."""
    found = Stack.find(stack)
    if not as_json:
        send_back(console(), found, table, dry_run=dry_run)
        return
    sent, removed = _send_back(found, table, dry_run=dry_run)
    listed = [{"id": each.id, "table": each.table or None, "queue": each.origin.queue} for each in sent]
    typer.echo(json.dumps({"dry_run": dry_run, "sent": listed, "removed": removed}, indent=1))


def send_back(screen: Console, stack: Stack, table: str | None = None, *, dry_run: bool = False) -> None:
    """Send the dead letters of a stack back, or say which would be, a line each.

    Of those that ask for the same table to be ingested one goes back and the others are removed: a run reads all.
    """

    def tell(letter: Letter) -> None:
        screen.print(
            f"{'would send' if dry_run else 'sent'} {letter.id[:_SHORT]} back to {letter.origin.queue}: "
            f"{letter.table or _cut(letter.body, _WHY)}",
        )

    sent, removed = _send_back(stack, table, dry_run=dry_run, tell=tell)
    of, would = f" of {table}" if table else "", "would be " if dry_run else ""
    screen.print(f"{counted(len(sent), 'message')}{of} {would}sent back.")
    if removed:
        ask = "asks" if removed == 1 else "ask"
        screen.print(f"{counted(removed, 'message')} that {ask} for the same {would}removed: one run reads all.")


def _send_back(
    stack: Stack, table: str | None, *, dry_run: bool, tell: Callable[[Letter], object] = lambda _: None
) -> tuple[list[Letter], int]:
    """Send letters back; return them, and how many were removed, or would be. Each is told of as it goes."""
    dead_letters = stack.dead_letters
    sent: dict[tuple[str, str], Letter] = {}
    removed = 0
    with dead_letters.opened() as letters:
        for letter in _chosen(letters, table):
            errand = (letter.origin.queue, _table_to_ingest(letter) or letter.id)
            if errand in sent:
                removed += 1
                if not dry_run:
                    dead_letters.remove(letter)
                continue
            sent[errand] = letter
            if not dry_run:
                dead_letters.redrive(letter, stack.queues)
            tell(letter)
    return [*sent.values()], removed


@app.command()
def drop(letter_id: LetterId, stack: StackName, *, as_json: AsJson = False) -> None:
    """Delete one letter for good."""
    dead_letters = Stack.find(stack).dead_letters
    with _found(dead_letters, letter_id) as letter:
        dead_letters.remove(letter)
    if as_json:
        typer.echo(json.dumps({"dropped": _as_json(letter)}, indent=1))
    else:
        console().print(f"dropped {letter.id[:_SHORT]}: {letter.table or _cut(letter.body, _WHY)}")


def _sorted(dead_letters: DeadLetters, table: str | None) -> list[Letter]:
    """Return the letters, or those of a table, the oldest first."""
    with live_count("looking through the dead letters") as seen, dead_letters.opened() as opened:
        return sorted(_chosen(opened, table, seen), key=lambda letter: letter.arrived)


def _chosen(
    letters: Iterable[Letter], table: str | None, seen: Callable[[int], object] = lambda _: None
) -> Iterator[Letter]:
    """Yield the letters, or those of a table; `seen` is told how many were looked at."""
    if table is not None:
        try:
            table = str(TableName.parse(table))
        except ValueError as error:
            raise typer.BadParameter(str(error), param_hint="--table") from error
    for number, letter in enumerate(letters, 1):
        seen(number)
        if table is None or letter.table == table:
            yield letter


def _table_to_ingest(letter: Letter) -> str | None:
    """Return the table that a letter asks to be ingested, None where it asks for something else."""
    try:
        message = decode(letter.body)
    except InvalidMessage:
        return None
    return str(message.table_name) if isinstance(message, Ingest) else None


@contextmanager
def _found(dead_letters: DeadLetters, letter_id: str) -> Iterator[Letter]:
    """Lend the one letter whose id begins so."""
    with dead_letters.opened() as letters:
        fitting = [letter for letter in letters if letter.id.startswith(letter_id)] if letter_id else []
        if len(fitting) != 1:
            which = "none" if not fitting else f"{len(fitting)} of them"
            hint = "tidelog dead-letters list shows what there is"
            raise typer.BadParameter(f"{which} begins with {letter_id!r}: {hint}", param_hint="ID")
        yield fitting[0]


def _row(letter: Letter, now: datetime) -> tuple[str, ...]:
    failure = letter.failure
    return (
        letter.id[:_SHORT],
        letter.table or "-",
        failure.error if failure else "WorkerKilled",
        _cut(failure.hint or failure.reason if failure else _KILLED, _WHY),
        str(failure.tries) if failure else "-",
        _age(now - letter.arrived),
    )


def _lines(letter: Letter) -> Iterator[tuple[str, str]]:
    failure = letter.failure
    yield "id", letter.id
    yield "table", letter.table or "none that can be read from the message"
    if failure:
        yield "error", failure.error
        yield "why", failure.reason
        yield "to do", failure.hint or "see the worker's log"
        yield "tries", f"{failure.tries}, first {failure.first_seen}, last {failure.failed_at}"
        yield "request", f"{failure.run} (in the log of the worker)"
    else:
        yield "error", "no worker has lived to say why: it was killed, or ran out of time or memory, each time"
        yield "to do", _KILLED
    yield "arrived", letter.arrived.isoformat(timespec="seconds")
    yield "from", f"{letter.origin.queue or 'an unknown queue'}, group {letter.origin.group}"
    yield (
        "message",
        letter.body if len(letter.body) <= 4000 else f"{letter.body[:4000]}… ({len(letter.body)} characters)",
    )


def _as_json(letter: Letter) -> dict[str, Any]:
    failure = msgspec.structs.asdict(letter.failure) if letter.failure else None
    return {
        "id": letter.id,
        "table": letter.table or None,
        "arrived": letter.arrived.isoformat(),
        "queue": letter.origin.queue,
        "group": letter.origin.group,
        "failure": failure,
        "message": letter.body,
    }


def _age(age: timedelta) -> str:
    minutes = int(age.total_seconds() // 60)
    if minutes < 120:
        return f"{minutes} min"
    return f"{minutes // 60} h" if minutes < 2880 else f"{minutes // 1440} d"


def _cut(text: str, length: int) -> str:
    line = " ".join(text.split())
    return line if len(line) <= length else f"{line[: length - 1]}…"
