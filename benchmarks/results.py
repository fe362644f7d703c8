"""What came of a part of the benchmarks: printed, and written to its section of RESULTS.md."""

from __future__ import annotations

import argparse
import os
import platform
import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from benchmarks.setting import ROOT

from tidelog_cli.output import console, fitted

PARTS = (
    "first_load",
    "large_load",
    "values",
    "incremental",
    "idle",
    "chunks",
    "cold_start",
    "cost",
    "cursors",
    "verifying",
)
"""The sections, in their order."""
_HEAD = """# What was measured

Written by the programs themselves, each its own section: `make bench` has all of them, `python -m benchmarks.<part>`
one. [README.md](README.md) says what each does and how the others are set up. What to go by are the ratios: they are of
one run, in which all took turns; the times are the machine's.
"""


@dataclass(frozen=True, slots=True)
class Grid:
    """A table: its first columns are text, the others are numbers."""

    headings: Sequence[str]
    rows: Sequence[Sequence[str]]
    title: str = ""
    text: int = 1

    def markdown(self) -> str:
        """Return it as Markdown."""
        lines = [
            self.headings,
            ["---" if number < self.text else "---:" for number in range(len(self.headings))],
            *self.rows,
        ]
        table = "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)
        return f"{self.title}\n\n{table}" if self.title else table


@dataclass(frozen=True, slots=True)
class Bar:
    """What was wanted.

    Attributes:
        what: is measured.
        measured: what came of it; None where it can't be said, for the reason in `what`.
        wanted: the bar.
        least: whether it is the least that is wanted; otherwise it is the most.
        unit: of both.
    """

    what: str
    measured: float | None
    wanted: float
    least: bool = True
    unit: str = ""

    def __str__(self) -> str:
        """Say whether it was reached."""
        wanted = f"wanted: {'at least' if self.least else 'at most'} {self.wanted:g}{self.unit}"
        if self.measured is None:
            return f"not judged: {self.what}; {wanted}"
        reached = self.measured >= self.wanted if self.least else self.measured <= self.wanted
        return f"{'reached' if reached else 'MISSED'}: {self.what}: {self.measured:.3g}{self.unit}; {wanted}"


@dataclass(frozen=True, slots=True)
class Section:
    """What came of a part."""

    part: str
    title: str
    circumstances: str
    grids: Sequence[Grid]
    bars: Sequence[Bar] = ()
    notes: Sequence[str] = field(default=())

    def print(self) -> None:
        """Print it."""
        screen = console()
        screen.print(f"{self.title}\n{self.circumstances}\n")
        for grid in self.grids:
            if grid.title:
                screen.print(grid.title)
            left = grid.headings[: grid.text]
            screen.print(fitted(grid.headings, grid.rows, left=left, screen=screen))
        for line in (*self.notes, *map(str, self.bars)):
            screen.print(line)

    def write(self, path: Path) -> None:
        """Write it to a file of results, in place of what stands there of the same part."""
        notes = [*self.notes, "\n".join(f"- {bar}" for bar in self.bars)]
        body = "\n\n".join([f"## {self.title}", self.circumstances, *(grid.markdown() for grid in self.grids), *notes])
        sections = read_sections(path) | {self.part: body.strip()}
        ordered = [_section(part, sections[part]) for part in PARTS if part in sections]
        path.write_text("\n".join([_HEAD, *ordered]))


def read_sections(path: Path) -> dict[str, str]:
    """Return the sections of a file of results, by their parts."""
    text = path.read_text() if path.exists() else ""
    return dict(re.findall(r"<!-- (\w+) -->\n(.*?)\n<!-- end of \1 -->", text, re.DOTALL))


def parser(documentation: str | None) -> argparse.ArgumentParser:
    """Return a parser of the arguments that every part has."""
    made = argparse.ArgumentParser(description=documentation, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument(
        "--results",
        type=Path,
        default=ROOT / "benchmarks" / "RESULTS.md",
        help="the file whose section is written anew; /dev/null for none",
    )
    return made


def circumstances(load: float, *more: str) -> str:
    """Say when, of what and on which machine something was measured.

    Args:
        load: of the machine, before anything was started.
        more: what else matters, such as versions.
    """
    facts = [f"{datetime.now(UTC):%Y-%m-%d}", f"tidelog {version('tidelog')} at {_commit()}", machine(), *more]
    return f"{'; '.join(facts)}; load before it {load:.1f}."


def machine() -> str:
    """Describe this machine."""
    info = Path("/proc/cpuinfo")
    model = re.search(r"model name\s*: (.*)", info.read_text()) if info.exists() else None
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    name = model[1] if model else platform.processor()
    system = f"{platform.system()} {platform.release()}"
    return f"{os.cpu_count()} cores ({name}), {memory:.0f} GiB, {system}, Python {platform.python_version()}"


def _section(part: str, body: str) -> str:
    return f"<!-- {part} -->\n{body}\n<!-- end of {part} -->\n"


def _commit() -> str:
    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()

    changed = git("status", "--porcelain", "--untracked-files=no", "--", "shared", "functions", "sandbox")
    return f"{git('rev-parse', '--short', 'HEAD') or 'an unknown commit'}{' with changes' if changed else ''}"
