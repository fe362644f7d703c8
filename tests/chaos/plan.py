"""What the functions' processes are to do to themselves, and what they have done."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
INSIDE = Path(__file__).with_name("inside")


@dataclass(frozen=True)
class Call:
    """A call that left a function's process.

    Attributes:
        table: of the message that was worked off; empty where there was none.
        call: its name, and which one of that name it was in its invocation.
        killed: whether it was the process's last.
    """

    table: str
    call: str
    killed: bool


class Plan:
    """The plan that the processes follow from their next invocation on, and their journal.

    Args:
        directory: where they find it.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._journal = directory / "journal"
        self._journal.touch()
        self.change()

    @property
    def environment(self) -> Mapping[str, str]:
        """Variables that lead a function's process to the plan."""
        return {"PYTHONPATH": f"{INSIDE}:{ROOT / 'shared'}", "TIDELOG_CHAOS": str(self._directory)}

    def change(self, *, kill: Mapping[str, str] | None = None, share: float = 0, clock: float = 0) -> None:
        """Let the processes do something else.

        Args:
            kill: of a table the call that is its worker's last.
            share: of all calls that are a process's last.
            clock: seconds that the clock of an invocation is off, at most.
        """
        plan = {"kill": kill or {}, "share": share, "clock": clock}
        new = self._directory / "plan.new"
        new.write_text(json.dumps(plan), encoding="utf-8")
        new.rename(self._directory / "plan.json")

    def calls(self, table: str | None = None) -> list[Call]:
        """Return the calls so far, of one table or of all."""
        lines = self._journal.read_text(encoding="utf-8").splitlines()
        calls = [Call(**json.loads(line)) for line in lines]
        return [call for call in calls if table in (None, call.table)]

    def await_call(self, name: str, seconds: float) -> None:
        """Wait until a call of some name is made, for some seconds at most."""
        end = time.monotonic() + seconds
        with self._journal.open(encoding="utf-8") as journal:
            journal.seek(0, os.SEEK_END)
            while time.monotonic() < end:
                if name in journal.readline():
                    return
                time.sleep(0.001)
