"""All parts of the benchmarks, one after the other, each a process of its own. What fails does not end the others."""

from __future__ import annotations

import argparse
import subprocess
import sys
import time

from benchmarks.setting import ROOT, report

_FULL = "20000000"
_PARTS = {
    "first_load": ("--rows", _FULL, "--full"),
    "values": (),
    "incremental": ("--rows", _FULL),
    "idle": (),
    "chunks": ("--rows", _FULL),
    "cold_start": (),
    "cost": (),
}
"""With what each runs when all rows and all peers are wanted."""


def main() -> None:
    """Run them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--full", action="store_true", help="20 million rows, and the slow peers read all; hours")
    given = parser.parse_args()
    failed = []
    for part, more in _PARTS.items():
        started = time.monotonic()
        command = [sys.executable, "-m", f"benchmarks.{part}", *(more if given.full else ())]
        if subprocess.run(command, cwd=ROOT, check=False).returncode:
            failed.append(part)
        report(f"{part}: {time.monotonic() - started:.0f} s")
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
