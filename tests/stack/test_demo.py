"""`tidelog demo`, as `make demo` runs it."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from tests.stack.command import TIDELOG, environment

FOLDERS = ["data", "failures", "ledger", "schema", "ticks"]


def test_each_tick_has_only_the_changed_rows_and_what_is_large_or_fails_comes_too(tmp_path: Path) -> None:
    """The rows of each tick are those that the shop has written, with chunks and with the redrive.

    The lake of a demo before is emptied first.
    """
    for folder in (".tidelog", *FOLDERS):
        (tmp_path / "lake" / folder).mkdir(parents=True)
    command = [TIDELOG, "demo", "--lake", str(tmp_path / "lake")]
    result = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=240, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    first, second, third, fourth = result.stdout.split("The shop does business. Rows written: ")
    assert len(_rows(first)) == 11
    assert sum(_rows(first).values()) > 100_000
    assert _rows(second) == _written(second)
    assert "unchanged: " in second
    tick, _, again = third.partition("$ tidelog backfill")
    assert _rows(tick.partition("bytes   sequential id")[2]) == {**_written(third), "visit": 250_000}
    assert len(re.findall(r"public\.visit: chunk \d+ of \d+", tick)) >= 4
    [rows] = re.findall(r"public\.sales_order: ([\d,]+) rows, .* in the lake", again)
    assert int(rows.replace(",", "")) > 100
    tick, _, mended = fourth.partition("$ tidelog dead-letters redrive")
    assert _rows(tick) | _rows(mended) == _written(fourth)
    assert set(_rows(mended)) == {"staff", "design"}
    assert '{"' in mended
    assert sorted(path.name for path in (tmp_path / "lake").iterdir() if path.name[0] != ".") == FOLDERS
    _tells_of_failures(tick, mended)


def _tells_of_failures(tick: str, mended: str) -> None:
    """Each try, both emails as they are sent, the list, and the end of the alarm."""
    assert re.findall(r"public\.(\w+), try (\d): (\w+);", tick) == [
        ("staff", "1", "AccessDenied"),
        *(("design", str(number), "DatabaseBusy") for number in range(1, 6)),
    ]
    for words in (
        'Subject: ALARM: "tidelog-dead-letters" in EU (London)',
        "Subject: [tidelog] public.design failed with DatabaseBusy",
        "To: administrator@example.com",
        "5 times, first received",
        "tidelog dead-letters redrive --table public.design --stack tidelog",
    ):
        assert words in tick
    assert 'OK: "tidelog-dead-letters" in EU (London)' in mended
    assert mended.count("nothing lost") == 2


def test_a_folder_with_other_files_is_left_alone(tmp_path: Path) -> None:
    """The demo empties its folder: not one that is somebody's."""
    (tmp_path / "thesis.txt").write_text("years of work", encoding="utf-8")
    command = [TIDELOG, "demo", "--lake", str(tmp_path)]
    result = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 2
    assert (tmp_path / "thesis.txt").exists()


def _rows(text: str) -> dict[str, int]:
    return {table: int(rows.replace(",", "")) for table, rows in re.findall(r"public\.(\w+) +([\d,]+) ", text)}


def _written(text: str) -> dict[str, int]:
    line = text.partition("\n")[0]
    return {table: int(rows) for rows, table in re.findall(r"(\d+) in (\w+)", line)}
