"""The third act of the demo: more rows than one run takes, beside live tables; and some dates that are read again."""

from __future__ import annotations

import threading

from pg8000.native import Connection
from rich.console import Console

from tidelog_cli.backfill import ask, offsets, show
from tidelog_cli.following import Wanted, follow
from tidelog_cli.local import run_tick
from tidelog_cli.output import counted
from tidelog_cli.stack import Stack
from tidelog_cli.ticks import TickResult, read_result, show_tick
from tidelog_sandbox import shop
from tidelog_sandbox.functions import Invocation
from tidelog_sandbox.sandbox import Sandbox

ROWS = 250_000
TABLE = "public.visit"
_AGAIN = "public.sales_order"
_SINCE, _UNTIL = "2024-05-01", "2024-06-01"


def import_archive(owner: Connection, role: str) -> None:
    """Give the shop a table that is too large for one run."""
    shop.import_visits(owner, ROWS)
    owner.run(f"GRANT SELECT ON visit TO {role}")


class Archive:
    """A large table, read in chunks, and a backfill.

    Args:
        screen: where it is told.
        sandbox: the deployed template, its mappings at work.
        owner: a connection of the database's owner.
    """

    def __init__(self, screen: Console, sandbox: Sandbox, owner: Connection) -> None:
        self._screen = screen
        self._sandbox = sandbox
        self._owner = owner
        self._stack = Stack("tidelog", sandbox.outputs, sandbox.client, sandbox.parameters)
        self._lock = threading.Lock()
        self._told = True

    def run(self) -> bool:
        """Tell the act; return whether all came as it should."""
        self._screen.print(
            "\n[bold]Tick 3[/bold]: what is too much for one run is read in chunks, side by side; nobody waits for "
            "them",
            markup=True,
        )
        self._sandbox.on_invocation(self._hear)
        self._told = False
        tick = run_tick(self._sandbox, "tick 3")
        self._told = True
        show_tick(self._screen, tick)
        return tick.complete and self._counts(tick) and self._read_again()

    def _hear(self, invocation: Invocation) -> None:
        """Tell of each run as it ends."""
        result = read_result(invocation)
        if result is None or self._told or result.outcome in ("unchanged", "failed"):
            return
        what = counted(result.rows, "row")
        if result.chunk:
            what = f"chunk {result.chunk} of {result.chunks}, {what}"
        elif result.outcome == "planned":
            what = f"planned in {counted(result.chunks, 'chunk')}"
        with self._lock:
            self._say(f" {result.table}: {what}")

    def _counts(self, tick: TickResult) -> bool:
        [visit] = [table for table in tick.tables if table.table == TABLE]
        return visit.outcome == "planned" and visit.rows == ROWS

    def _read_again(self) -> bool:
        """Have the orders of a month read again."""
        [[expected]] = self._owner.run(
            "SELECT count(*) FROM sales_order WHERE created_at >= :since AND created_at < :until "
            "OR last_updated >= :since AND last_updated < :until",
            since=f"{_SINCE} 00:00Z",
            until=f"{_UNTIL} 00:00Z",
        )
        request = {"version": 1, "type": "backfill", "tables": [_AGAIN], "from": _SINCE, "to": _UNTIL}
        self._say(f"\nSomebody downstream has lost the orders of a month:\n\n$ {_command('--dry-run')}")
        show(self._screen, ask(self._stack, request, dry_run=True))
        self._say(f"$ {_command('--wait')}")
        before = offsets(self._stack, [_AGAIN])
        [sent] = ask(self._stack, request)
        [done] = follow(self._stack, [Wanted(_AGAIN, before[_AGAIN], sent["request"])])
        self._say(str(done))
        return done.succeeded and done.rows == expected

    def _say(self, text: str) -> None:
        self._screen.print(text)


def _command(option: str) -> str:
    return f"tidelog backfill {_AGAIN} --from {_SINCE} --to {_UNTIL} {option} --stack tidelog"
