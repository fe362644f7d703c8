"""The fourth act of the demo: two tables can't be read, and how that is noticed, mended and made up for."""

from __future__ import annotations

import gzip
import json
import threading
from pathlib import Path
from typing import Any

from pg8000.native import Connection
from rich.console import Console

from tidelog.lake import read_segment_key
from tidelog_cli.dead_letters import print_letters, send_back
from tidelog_cli.stack import Stack
from tidelog_cli.ticks import TableResult, TickResult, read_result, show_tick
from tidelog_sandbox.emails import Email
from tidelog_sandbox.functions import Invocation
from tidelog_sandbox.sandbox import Sandbox

_FORBIDDEN, _LOCKED = "staff", "design"
_SECONDS = 120


class Mishap:
    """Breaks two tables of the shop, and mends them.

    Args:
        screen: where it is told.
        sandbox: the deployed template, its mappings and alarms at work.
        owner: a connection of the database's owner.
        migration: another one.
        role: the one that tidelog has.
        lake: the sandbox's lake.
    """

    def __init__(
        self, screen: Console, sandbox: Sandbox, owner: Connection, migration: Connection, *, role: str, lake: Path
    ) -> None:
        self._screen = screen
        self._sandbox = sandbox
        self._owner = owner
        self._migration = migration
        self._role = role
        self._lake = lake
        self._stack = Stack("tidelog", sandbox.outputs, sandbox.client)
        self._lock = threading.Lock()
        self._results: dict[str, TableResult] = {}
        self._tries: dict[str, int] = {}
        sandbox.on_invocation(self._hear)

    def run(self) -> bool:
        """Tell the act; return whether all was made up for."""
        self._say(
            f"\nThen somebody takes away the role's SELECT on {_FORBIDDEN}, and leaves a migration open that locks "
            f"{_LOCKED}."
        )
        self._owner.run(f"REVOKE SELECT ON {_FORBIDDEN} FROM {self._role}")
        self._migration.run(f"BEGIN; LOCK TABLE {_LOCKED} IN ACCESS EXCLUSIVE MODE")
        self._screen.print(
            "\n[bold]Tick 4[/bold]: two tables can't be read (what would rest for minutes rests for seconds here)",
            markup=True,
        )
        self._sandbox.invoke(self._sandbox.outputs["SchedulerFunction"], {})
        self._sandbox.wait_until_idle(_SECONDS)
        self._show_results("the others are not held up:")
        self._show_alarm()
        self._say("\n$ tidelog dead-letters list --stack tidelog")
        print_letters(self._screen, self._stack)
        self._mend()
        return self._is_whole(_FORBIDDEN) and self._is_whole(_LOCKED)

    def _show_alarm(self) -> None:
        name = self._sandbox.wait_for_alarm("dead-letters", "ALARM", _SECONDS)
        self._say(f"\nThe alarm {name} is on. AWS mails what it knows:\n")
        self._show(self._email(f'ALARM: "{name}"'))
        self._say("\nand tidelog what it knows, once an hour for the same error of the same table:\n")
        self._show(self._email(f"[{self._stack.name}] public.{_LOCKED} failed"))

    def _mend(self) -> None:
        self._say("\nThe role gets its SELECT back, the migration ends.")
        self._owner.run(f"GRANT SELECT ON {_FORBIDDEN} TO {self._role}")
        self._migration.run("ROLLBACK")
        self._results.clear()
        before = len(self._sandbox.emails)
        self._say("\n$ tidelog dead-letters redrive --stack tidelog")
        send_back(self._screen, self._stack)
        self._sandbox.wait_until_idle(_SECONDS)
        self._show_results("")
        name = self._sandbox.wait_for_alarm("dead-letters", "OK", _SECONDS)
        cleared = self._email(f'OK: "{name}"', before)
        self._say(f"Email: {cleared.subject}")

    def _email(self, subject: str, before: int = 0) -> Email:
        """Wait for an email whose subject begins so; those that came before some number of them don't count."""
        old = self._sandbox.emails[:before]
        return self._sandbox.wait_for_email(lambda mail: mail.subject.startswith(subject) and mail not in old, _SECONDS)

    def _hear(self, invocation: Invocation) -> None:
        """Tell of a try as it ends."""
        result = read_result(invocation)
        if result is None:
            return
        with self._lock:
            if result.outcome != "failed":
                self._results[result.table] = result
                return
            self._tries[result.table] = tries = self._tries.get(result.table, 0) + 1
            then = {
                "buried": "no retry would mend that: to the dead letters",
                "retried": f"again in {result.again} s",
                "given up": "to the dead letters",
            }[result.then]
            self._say(f" {result.table}, try {tries}: {result.error}; {then}")

    def _show_results(self, title: str) -> None:
        if title:
            self._say(title)
        show_tick(self._screen, TickResult(tuple(self._results[table] for table in sorted(self._results))))

    def _is_whole(self, table: str) -> bool:
        """Say whether the latest version of every row in the lake is the one in the database."""
        rows = self._owner.run(f"SELECT row_to_json(t)::text FROM {table} t")
        expected = {row[f"{table}_id"]: row for [text] in rows for row in [json.loads(text)]}
        whole = _latest(self._lake, table) == expected
        result = "are those of the database: nothing lost" if whole else "DIFFER from the database"
        self._say(f"public.{table}: the latest versions of {len(expected)} rows in the lake {result}.")
        return whole

    def _show(self, mail: Email) -> None:
        for line in str(mail).splitlines():
            self._say(f"  | {line}".rstrip())

    def _say(self, text: str) -> None:
        self._screen.print(text)


def _latest(lake: Path, table: str) -> dict[Any, dict[str, Any]]:
    """Return of each key the row in the segment of the highest position."""
    paths = (lake / "data" / f"public.{table}").rglob("*.jsonl.gz")
    latest = {}
    for path in sorted(paths, key=lambda path: read_segment_key(str(path.relative_to(lake)))[1]):
        with gzip.open(path, "rt", encoding="utf-8", newline="\n") as lines:
            for row in map(json.loads, lines):
                latest[row[f"{table}_id"]] = row
    return latest
