"""All parts of the benchmarks, one after the other, each a process of its own. What fails does not end the others."""

from __future__ import annotations

import argparse
import subprocess
import sys
import time

from benchmarks.setting import ROOT, report

_ROWS = ("--rows", "20000000")
_PARTS = {
    "first_load": (),
    "values": (),
    "incremental": _ROWS,
    "idle": (),
    "chunks": _ROWS,
    "cold_start": (),
    "cost": (),
}
"""With what each runs when all rows and all peers are wanted."""
_LARGE = ("first_load", (*_ROWS, "--full", "--shapes", "narrow"))
"""Then this comes, too; it has a section of its own."""


def main() -> None:
    """Run them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--full", action="store_true", help="20 million rows, and the slow peers read all; hours")
    given = parser.parse_args()
    failed = []
    runs = [*_PARTS.items(), _LARGE] if given.full else [(part, ()) for part in _PARTS]
    for part, more in runs:
        started = time.monotonic()
        if subprocess.run([sys.executable, "-m", f"benchmarks.{part}", *more], cwd=ROOT, check=False).returncode:
            failed.append(part)
        report(f"{part}: {time.monotonic() - started:.0f} s")
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
