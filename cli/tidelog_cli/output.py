"""How things look on the screen: plain aligned tables, numbers a person can read, colours only on a terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime

import typer
from rich import box
from rich.console import Console
from rich.measure import Measurement
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.prompt import Confirm
from rich.table import Table
from rich.text import Text

_WIDE = 240  # where nobody looks, nothing is cut off


def console(*, err: bool = False) -> Console:
    """Return the screen, or what stands in its place. Text is printed as it is, whatever a table is called."""
    stream = sys.stderr if err else sys.stdout
    width = None if stream.isatty() else _WIDE
    return Console(file=stream, width=width, highlight=False, soft_wrap=True, markup=False, emoji=False)


def size(count: int) -> str:
    """Return a number of bytes with its unit."""
    value, unit = float(count), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if value < 1024:
            break
        value, unit = value / 1024, larger
    return f"{count} B" if unit == "B" else f"{value:,.1f} {unit}"


def duration(seconds: float) -> str:
    """Return a length of time with its unit."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = seconds / 60
    return f"{minutes:.0f} min" if minutes < 90 else f"{minutes / 60:.1f} h"


def moment(text: str | None) -> str:
    """Return a timestamp (ISO 8601, with a zone) as a person reads it, in UTC."""
    return f"{datetime.fromisoformat(text).astimezone(UTC):%Y-%m-%d %H:%M:%S}" if text else ""


def aligned(headings: Sequence[str], rows: Sequence[Sequence[str]], *, left: int = 1, prose: str = "") -> Table:
    """Return a plain table; columns but the first `left` ones are aligned to the right.

    The column headed `prose` takes more lines where there is too little room; the others are never cut before it is.
    """
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for number, heading in enumerate(headings):
        table.add_column(heading, justify="left" if number < left else "right", no_wrap=heading != prose)
    for row in rows:
        table.add_row(*row)
    return table


def fitted(
    headings: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    left: Sequence[str],
    spare: Sequence[str],
    screen: Console,
) -> Table:
    """Return a plain table that fits on the screen: columns are left out until it does, first empty ones, then `spare`.

    If it still does not fit, the texts of the columns `left`, which are aligned to the left, take more lines.
    """
    kept = list(headings)
    empty = [heading for number, heading in enumerate(headings) if not any(row[number] for row in rows)]
    for out in (*empty, *(heading for heading in spare if heading not in empty), None):
        chosen = [headings.index(heading) for heading in kept]
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
        for heading in kept:
            folds = heading in left
            table.add_column(heading, justify="left" if folds else "right", no_wrap=not folds, overflow="fold")
        for row in rows:
            table.add_row(*(row[number] for number in chosen))
        if (
            out is None
            or Measurement.get(screen, screen.options.update(width=_WIDE * 2), table).maximum <= screen.width
        ):
            break
        kept.remove(out)
    return table


def confirm(question: str) -> None:
    """Ask, and end the command unless the answer is yes.

    Raises:
        typer.Abort: it is not; or there is nobody to ask.
    """
    if not Confirm.ask(Text(question), console=console(err=True), default=False):
        raise typer.Abort


class Line:
    """A live line about a tick under way."""

    def __init__(self, progress: Progress, title: str) -> None:
        self._progress = progress
        self._title = title
        self._task = progress.add_task(title, total=None)

    def __call__(self, done: int, total: int, rows: int) -> None:
        """Say how far the tick is."""
        text = f"{self._title}: {done} of {counted(total, 'table')}, {counted(rows, 'row')}"
        self._progress.update(self._task, description=text, completed=done, total=total or 1)


@contextmanager
def live_line(title: str) -> Iterator[Line]:
    """Show a line that moves, on a terminal; elsewhere nothing."""
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        TimeElapsedColumn(),
    )
    screen = console(err=True)
    with Progress(*columns, console=screen, transient=True, disable=not screen.is_terminal) as progress:
        yield Line(progress, title)


@contextmanager
def live_count(title: str) -> Iterator[Callable[[int], object]]:
    """Show a number that grows, on a terminal; elsewhere nothing."""
    screen = console(err=True)
    columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn())
    with Progress(*columns, console=screen, transient=True, disable=not screen.is_terminal) as progress:
        task = progress.add_task(title, total=None)
        yield lambda count: progress.update(task, description=f"{title}: {count:,}")


@contextmanager
def live_bar(title: str) -> Iterator[Callable[[int, int, str], object]]:
    """Show a bar on a terminal, with what is done, what there is in all, and a text beside; elsewhere nothing."""
    screen = console(err=True)
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=screen, transient=True, disable=not screen.is_terminal) as progress:
        task = progress.add_task(title, total=None)
        yield lambda done, total, text: progress.update(
            task, description=f"{title}: {text}", completed=done, total=total
        )


def counted(number: int, what: str) -> str:
    """Return so many of something, in words: "1 row", "2,000 rows"."""
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"
