"""How long does a cold start take, and how long until the first object? tidelog's worker beside its peers.

Each run is a process of its own, from its start: until the worker's function and all its parts are ready, and until a
table of a thousand rows is in the lake, on a real S3 server; of the peers, until it is in a file of this machine.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from benchmarks.peers import PEERS, PLAIN_PEER, Peer, Task
from benchmarks.processes import Pipe, Took, ToolFailedError, run, tail
from benchmarks.results import Bar, Grid, Section, circumstances, parser
from benchmarks.setting import ROOT, Setting, on_lambda, report, set_up
from benchmarks.tables import fill

_ROWS = 1000
_TABLE = "small"
_LIBRARIES = "import botocore.session, pg8000.native, aws_lambda_powertools.metrics, msgspec, isal.isal_zlib"


@dataclass(slots=True)
class Start:
    """Seconds of one start of the worker, each from the start of its process."""

    loaded: float
    """Until the function's code is loaded."""
    ready: float
    """Until all its parts are made."""
    done: float
    """Until the first object is there, its event in the ledger, and the state in Parameter Store."""


@dataclass(slots=True)
class Rival:
    """A peer, and what its runs took."""

    peer: Peer
    runs: list[Took] = field(default_factory=list)
    failed: str = ""


def main() -> None:
    """Measure, print and write."""
    arguments = parser(__doc__)
    arguments.add_argument("--runs", type=int, default=7)
    given = arguments.parse_args()
    load = os.getloadavg()[0]
    rivals = [Rival(peer) for peer in PEERS if peer.kind != "limit" or peer.name == PLAIN_PEER]
    bare: list[float] = []
    loaded: list[float] = []
    starts: list[Start] = []
    with set_up() as setting:
        fill(setting.server, _TABLE, _ROWS)
        environment = setting.environment("lake")
        python, libraries = (Pipe([[on_lambda("worker")[0], "-c", code]], environment) for code in ("pass", _LIBRARIES))
        for number in range(given.runs + 1):
            report(f"run {number} of {given.runs} …" if number else "warming up …")
            bare.append(run(python, setting.server, setting.scratch / "log").seconds)
            loaded.append(run(libraries, setting.server, setting.scratch / "log").seconds)
            starts.append(start(setting, f"lake-{number}"))
            for rival in rivals:
                load_peer(setting, rival)
        where = circumstances(load, setting.versions())
    section = result(where, bare[1:], loaded[1:], starts[1:], rivals)
    section.print()
    section.write(given.results)


def start(setting: Setting, bucket: str) -> Start:
    """Start a worker, and have it take the table into an empty lake."""
    setting.make_lake(bucket)
    log = setting.scratch / "log"
    command = on_lambda("worker")
    with log.open("wb") as errors:
        began = time.perf_counter()
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=setting.environment(bucket),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
        said, _ = process.communicate(f"public.{_TABLE}\n")
    if process.returncode:
        sys.exit(tail(command, log))
    ready, ran = map(json.loads, said.splitlines())
    if ran["rows"] != _ROWS:
        sys.exit(f"the worker wrote {ran['rows']} rows of {_ROWS}")
    return Start(ready["loaded"] - began, ready["ready"] - began, ran["done"] - began)


def load_peer(setting: Setting, rival: Rival) -> None:
    """Have a peer write the table."""
    if rival.failed:
        return
    try:
        pipe = rival.peer.pipe(Task(setting.server, _TABLE, setting.directory("peer")))
        rival.runs.append(run(pipe, setting.server, setting.scratch / "log", seconds=600))
    except ToolFailedError as error:
        rival.failed = error.brief


def result(
    where: str, bare: Sequence[float], libraries: Sequence[float], starts: Sequence[Start], rivals: Sequence[Rival]
) -> Section:
    """Say what it took. The first run of each is not counted."""
    loaded, ready, done = (
        statistics.median(getattr(each, what) for each in starts) for what in ("loaded", "ready", "done")
    )
    steps = [
        ("Python alone", f"{statistics.median(bare):.3f}"),
        (
            "with botocore, pg8000, Powertools, msgspec and isal loaded, and nothing else",
            f"{statistics.median(libraries):.3f}",
        ),
        ("the worker's code is loaded", f"{loaded:.3f}"),
        ("it is ready", f"{ready:.3f}"),
        ("the first object is there", f"{done:.3f}"),
    ]
    firsts = [("tidelog worker", done)]
    firsts += [
        (each.peer.name, statistics.median(took.seconds for took in each.runs[1:]))
        for each in rivals
        if not each.failed
    ]
    firsts.sort(key=lambda each: each[1])
    rows = [(name, f"{seconds:.3f}", f"{seconds / done:.2f}") for name, seconds in firsts]
    rows += [(each.peer.name, each.failed, "") for each in rivals if each.failed]
    return Section(
        "cold_start",
        "A cold start",
        where,
        [
            Grid(("since the process was started", "seconds"), steps),
            Grid(("", "seconds", "ratio"), rows, f"A table of {_ROWS:,} rows is written, from the start of a process:"),
        ],
        [Bar("ms from the start of the process until the worker is ready", ready * 1000, 350, least=False)],
        [f"Medians of {len(starts)} runs in turns."],
    )


if __name__ == "__main__":
    main()
