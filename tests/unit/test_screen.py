"""What the command line loads, and how it says things."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from tests.stack.command import TIDELOG, environment
from tests.unit.test_events import WHATS
from tidelog.events import What
from tidelog.letters import Failure
from tidelog.plans import Kind, Planned, PlannedLeaf
from tidelog.readings import Reading
from tidelog.state import State
from tidelog.tables import TableName
from tidelog.windows import Database
from tidelog_cli.output import console, fitted
from tidelog_cli.plot import bars
from tidelog_cli.status import render
from tidelog_cli.survey import Overview, Standing
from tidelog_cli.wording import in_words

HEAVY = ("boto3", "moto", "tidelog_sandbox", "duckdb", "pg8000")
_LOADED = """
import sys
from tidelog_cli.main import main
sys.argv[0] = "tidelog"
try:
    main()
finally:
    print(*sorted({name.partition(".")[0] for name in sys.modules}), file=sys.stderr)
"""


def test_a_folder_that_cannot_be_made_is_told_in_a_line(tmp_path: Path) -> None:
    """A path through a file."""
    tmp_path.joinpath("file").touch()
    place = str(tmp_path / "file" / "lake")
    command = [TIDELOG, "local", "run", "--lake", place, "--database", "postgresql://a@127.0.0.1:1/a"]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (
        1,
        f"tidelog: make the lake {place}: Not a directory. Name a folder that you may write to\n",
    )


@pytest.mark.parametrize(
    ("command", "spared"),
    [
        ("--help", (*HEAVY, "botocore")),
        ("tables --help", HEAVY),
        ("status --help", HEAVY),
        ("local run --help", HEAVY),
        ("demo --help", HEAVY),
        ("tables --stack none", ("moto", "tidelog_sandbox", "duckdb", "pg8000")),
        ("status --lake nowhere", HEAVY),
    ],
)
def test_a_command_loads_only_what_it_needs(command: str, spared: tuple[str, ...]) -> None:
    """In a process of its own; what fails is one line."""
    done = subprocess.run(
        [sys.executable, "-c", _LOADED, *command.split()],
        env=environment(AWS_EC2_METADATA_DISABLED="true"),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "Traceback" not in done.stderr
    *_, loaded = done.stderr.splitlines()
    assert "typer" in loaded.split()
    assert not set(spared) & set(loaded.split())


def test_who_reads_no_further_is_left_in_peace() -> None:
    """`| head -1` gets its line, and there is no complaint."""
    command = ["sh", "-c", f"{TIDELOG} --help | head -1"]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("words", "expected"), [("tidelog sta", "status"), ("tidelog status --wa", "--watch"), ("tidelog hi", "history")]
)
def test_a_shell_completes_commands_and_options(words: str, expected: str) -> None:
    """As what `--install-completion` writes asks for them, though commands are loaded late."""
    asked = {"_TIDELOG_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": f"{words.count(' ')}"}
    done = subprocess.run([TIDELOG], env=environment(**asked), capture_output=True, text=True, check=False)
    assert done.stdout.split() == [expected]


@given(WHATS)
def test_every_event_has_words(what: What) -> None:
    """Of any kind there is; none is shown as Python has it."""
    assert in_words(what).strip()
    assert "Segment(" not in in_words(what)


@pytest.mark.parametrize(
    ("kind", "leaves", "reason", "said"),
    [
        (
            "sweep",
            (PlannedLeaf(1, "public.t", 1, 8, 2, 65536),),
            "a sweep: what is hidden",
            "a sweep was planned in 2 chunks: what is hidden",
        ),
        ("sweep", (), "a sweep: what is hidden", "a sweep had nothing to read"),
        ("sweep", (), "a sweep: what is hidden. Some is far", "a sweep had nothing to read. Some is far"),
        (
            "snapshot",
            (PlannedLeaf(1, "public.t", 1, 8, 2, 65536),),
            "chunks: it is too much for one run",
            "the first snapshot was planned in 2 chunks: it is too much for one run",
        ),
    ],
)
def test_a_plan_says_once_what_it_is_and_whether_there_is_anything(
    kind: Kind, leaves: Any, reason: str, said: str
) -> None:
    """One that a person asks for is an event in any case."""
    database = Database("1", 1, "d", 1)
    reading = Reading((), (), None, True, "", database, 1, 3, (), "", None, None)
    assert in_words(Planned(kind=kind, reason=reason, reading=reading, schema="", leaves=leaves)) == said


@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=50))
def test_bars_are_as_high_as_their_numbers(values: list[int]) -> None:
    """The greatest fills the plot, nothing has no bar, and whatever is more than nothing has one."""
    lines = [line.ljust(80) for line in bars(values, "first", "last", height=3)]
    margin = len(f"{max(values):,}") + 1
    for number, value in enumerate(values):
        column = [line[margin + number] for line in lines[:3]]
        assert (column == ["█"] * 3) == (value == max(values) > 0) or value * 24 >= max(values) * 23.5
        assert (column == [" "] * 3) == (value == 0)


@pytest.mark.parametrize(("width", "shown"), [(200, "abcdef"), (62, "abdf"), (40, "abf"), (20, "abf")])
def test_a_table_leaves_columns_out_until_it_fits(width: int, shown: str) -> None:
    """First those without any text, then the spare ones in their order; what is left takes more lines."""
    screen = Console(width=width, file=None, highlight=False)
    rows: list[tuple[Any, ...]] = [("a" * 12, "b" * 12, "c" * 12, "d" * 12, "", "f" * 12)]
    table = fitted(list("abcdef"), rows, left=("a", "b", "f"), spare=("c", "d"), screen=screen)
    assert "".join(str(column.header) for column in table.columns) == shown
    with screen.capture() as captured:
        screen.print(table)
    text = captured.get()
    assert all(len(line) <= width for line in text.splitlines())
    assert all(text.count(letter) >= 12 for letter in shown if letter != "e")


@pytest.mark.parametrize(("width", "inside"), [(200, True), (100, True), (80, False), (60, False)])
def test_the_status_says_what_failed_and_cuts_no_name(width: int, inside: bool) -> None:
    """Beside the table where there is room, and else below all of them."""
    at = datetime(2026, 11, 23, 12, tzinfo=UTC)
    failure = Failure("AccessDenied", "why", "what", "public.sales_order", "run", 1, at.isoformat(), at.isoformat())
    state = State(offset=1)
    tables = (
        Standing(TableName("public", "sales_order"), state, at.isoformat(), failure=failure, dead=True),
        Standing(TableName("public", "staff"), state, at.isoformat()),
    )
    screen = Console(width=width, highlight=False)
    with screen.capture() as captured:
        screen.print(render(Overview(at, tables), screen, "", 0))
    text = captured.get()
    assert ("public.sales_order: AccessDenied 0 s ago, dead letter" in text) != inside
    assert "\n public.sales_order " in text
    assert "AccessDenied" in text
    assert all(len(line) <= width for line in text.splitlines())


@pytest.mark.parametrize(
    ("width", "shown", "lines"), [(110, "abcd", 1), (64, "abcd", 2), (49, "abd", 3), (30, "abd", 4)]
)
def test_prose_takes_more_lines_before_a_column_is_left_out(width: int, shown: str, lines: int) -> None:
    """No number is ever cut off, and no name as long as there is something to leave out."""
    screen = Console(width=width, file=None, highlight=False)
    words = "one two three four five six seven eight nine ten eleven"
    table = fitted(
        "abcd", [("public.x", "1,000,000", "2,000,000", words)], left="ad", spare="c", screen=screen, prose="d"
    )
    assert "".join(str(column.header) for column in table.columns) == shown
    with screen.capture() as captured:
        screen.print(table)
    text = captured.get()
    assert "1,000,000" in text
    assert width < 49 or "public.x" in text
    assert "…" not in text
    assert all(len(line) <= width for line in text.splitlines())
    assert len([line for line in text.splitlines()[3:] if line.strip()]) >= lines


def test_names_stand_on_the_screen_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever rich would take for a style or a picture."""
    name = "public.x[/] [red]y :cat:"
    screen = console()
    screen.print(fitted(("table", "rows"), [(name, "1")], left=("table",), screen=screen))
    screen.print(f"{name}: 1 row")
    assert capsys.readouterr().out.count(name) == 2
