"""`tidelog demo`, as `make demo` runs it."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from tests.stack.command import TIDELOG, environment


def test_the_second_tick_has_only_the_changed_rows(tmp_path: Path) -> None:
    """The rows of each table in the second tick are those that the shop has written, and a real line is shown."""
    command = [TIDELOG, "demo", "--lake", str(tmp_path / "lake")]
    result = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    first, _, rest = result.stdout.partition("The shop does business. Rows written: ")
    written, _, second = rest.partition("\n")
    changed = {table: int(rows) for rows, table in re.findall(r"(\d+) in (\w+)", written)}
    assert _rows(second) == changed
    assert len(_rows(first)) == 11
    assert sum(_rows(first).values()) > 100_000
    assert "unchanged: " in second
    assert '{"' in second
    assert sorted(path.name for path in (tmp_path / "lake").iterdir() if path.name[0] != ".") == [
        "data",
        "ledger",
        "schema",
    ]


def test_a_folder_with_other_files_is_left_alone(tmp_path: Path) -> None:
    """The demo empties its folder: not one that is somebody's."""
    (tmp_path / "thesis.txt").write_text("years of work", encoding="utf-8")
    command = [TIDELOG, "demo", "--lake", str(tmp_path)]
    result = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 2
    assert (tmp_path / "thesis.txt").exists()


def _rows(text: str) -> dict[str, int]:
    return {table: int(rows.replace(",", "")) for table, rows in re.findall(r"public\.(\w+) +([\d,]+) ", text)}
