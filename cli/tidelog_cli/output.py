"""How things look on the screen: plain aligned tables, numbers a person can read, colours only on a terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Literal

import typer
from rich import box
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType
from rich.measure import Measurement
from rich.progress import (
    BarColumn,
    Progress,
    SpinnerColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.prompt import Confirm
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

_WIDE = 240  # where nobody looks, nothing is cut off
_ENDLESS = 100_000
_FEW_WORDS = 24

# What a terminal takes for an order to it, and what turns the direction of writing: names may hold it.
_ORDERS = {*range(32), *range(0x7F, 0xA0), *range(0x202A, 0x202F), *range(0x2066, 0x206A)} - {ord("\n"), ord("\t")}
_SHOWN = {code: chr(code).encode("unicode_escape").decode() for code in _ORDERS}


class _Screen(Console):
    """A screen that no name of a table can give orders to."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Render something, with the control characters of its texts spelt out."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(segment.text.translate(_SHOWN), segment.style)


def console(*, err: bool = False) -> Console:
    """Return the screen, or what stands in its place. Text is printed as it is, whatever a table is called."""
    stream = sys.stderr if err else sys.stdout
    width = None if stream.isatty() else _WIDE
    return _Screen(file=stream, width=width, highlight=False, soft_wrap=True, markup=False, emoji=False)


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


def fitted(
    headings: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    left: Sequence[str],
    screen: Console,
    spare: Sequence[str] = (),
    prose: str = "",
) -> Table:
    """Return a plain table that fits on the screen: columns are left out until it does, the empty ones, then `spare`.

    Before one is left out, the column headed `prose` takes more lines, as long as some words have room beside each
    other. If all that does not do, the texts of the columns `left`, which are aligned to the left, take more lines.
    """
    kept = list(headings)
    empty = [heading for number, heading in enumerate(headings) if not any(row[number] for row in rows)]
    shrinks = _beyond([prose, *(row[headings.index(prose)] for row in rows)]) if prose else 0
    for out in (empty, *([heading] for heading in spare if heading not in empty), None):
        chosen = [headings.index(heading) for heading in kept]
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
        for heading in kept:
            folds = heading == prose or (out is None and heading in left)
            side: Literal["left", "right"] = "left" if heading in left else "right"
            table.add_column(heading, justify=side, no_wrap=not folds, overflow="fold")
        for row in rows:
            table.add_row(*(row[number] for number in chosen))
        wanted = Measurement.get(screen, screen.options.update(width=_ENDLESS), table).maximum
        if out is None or wanted - shrinks * (prose in kept) <= screen.width:
            break
        kept = [heading for heading in kept if heading not in out]
    return table


def _beyond(texts: Iterable[str]) -> int:
    """Return by how much the widest line of some texts is wider than a few words."""
    return max(0, *(cell_len(line) - _FEW_WORDS for text in texts for line in text.split("\n")))


def confirm(question: str) -> None:
    """Ask, and end the command unless the answer is yes.

    Raises:
        typer.Abort: it is not; or there is nobody to ask.
    """
    if not Confirm.ask(Text(question), console=console(err=True), default=False):
        raise typer.Abort


class _TimeLeft(TimeRemainingColumn):
    """How long it takes yet, in so many words, where that can be said."""

    def render(self, task: Task) -> Text:
        """Return it."""
        shown = super().render(task)
        return shown.append(" left") if shown else shown


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
def live_spinner(title: str) -> Iterator[None]:
    """Show that an answer is waited for, on a terminal; elsewhere nothing."""
    screen = console(err=True)
    columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn())
    with Progress(*columns, console=screen, transient=True, disable=not screen.is_terminal) as progress:
        progress.add_task(title, total=None)
        yield


@contextmanager
def live_bar(title: str) -> Iterator[Callable[[int, int, str], object]]:
    """Show a bar on a terminal, with what is done, what there is in all, and a text beside; elsewhere nothing."""
    screen = console(err=True)
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        TimeElapsedColumn(),
        _TimeLeft(),
    )
    with Progress(*columns, console=screen, transient=True, disable=not screen.is_terminal) as progress:
        task = progress.add_task(title, total=None)
        yield lambda done, total, text: progress.update(
            task, description=f"{title}: {text}", completed=done, total=total
        )


def counted(number: int, what: str) -> str:
    """Return so many of something, in words: "1 row", "2,000 rows"."""
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"
