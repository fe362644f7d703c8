"""How fast is a first load, and what does it cost the client and the server? tidelog's worker beside its peers.

All read the same table of one PostgreSQL of this machine, in turns, and write gzip'd JSON Lines: the peers to this
machine's disk, the worker, by its own code from the lock to the projected state, to a real S3 server (SeaweedFS), which
runs on the same processors and is not counted. The worker's lines are compared with psql's, byte for byte, and the rows
that each peer has written are counted.
"""

from __future__ import annotations

import hashlib
import os
import statistics
import sys
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.peers import NULL_PEER, PEERS, PLAIN_PEER, Peer, Task, lines, written
from benchmarks.processes import Meter, Took, ToolFailedError, run
from benchmarks.results import Bar, Grid, Section, circumstances, parser
from benchmarks.setting import MEGABYTE, Setting, on_lambda, report, set_up
from benchmarks.tables import NARROW, SHAPES, Shape, fill

TIDELOG = "tidelog worker"
_MANY = 10_000_000
_PLAIN_MICROS = 2.85
"""Of client CPU a row that psql and gzip took where the bars were set."""
_SLOW_SHARE = 0.1
_WARM_ROWS = 1000
_PEER_SECONDS = 1800


@dataclass(slots=True)
class Subject:
    """What one of them took, run by run.

    Attributes:
        name: of it.
        rows: that it has read in each run.
        runs: what they took.
        warm: seconds of the worker from when it is told to run.
        size: bytes of the output.
        failed: why there is no result.
    """

    name: str
    rows: int
    runs: list[Took] = field(default_factory=list)
    warm: list[float] = field(default_factory=list)
    size: int = 0
    failed: str = ""

    @property
    def seconds(self) -> float:
        """The median."""
        return statistics.median(took.seconds for took in self.runs)

    def a_second(self, *, warm: bool = False) -> float:
        """Return the rows a second; of the worker with the start of its process, or without."""
        return self.rows / (statistics.median(self.warm) if warm else self.seconds)

    def over(self, other: Subject, *, warm: bool = False) -> float:
        """Return how many times as many rows a second it reads: the median of the rounds that both took part in."""
        mine = self.warm if warm else [took.seconds for took in self.runs]
        pairs = zip(mine, (took.seconds for took in other.runs), strict=False)
        return statistics.median(self.rows / seconds / (other.rows / theirs) for seconds, theirs in pairs)

    def micros(self, of: str) -> float:
        """Return the processor time of the client or the server, in microseconds a row."""
        spent: float = statistics.median(getattr(took, of) for took in self.runs)
        return spent / self.rows * 1e6

    @property
    def peak(self) -> float:
        """MB of memory, the most of all runs."""
        return max(took.peak for took in self.runs)


def main() -> None:
    """Measure, print and write."""
    arguments = parser(__doc__)
    many = f"{_MANY:,} and more have a section of their own"
    arguments.add_argument("--rows", type=int, default=2_000_000, help=f"of the table of 14 columns; {many}")
    arguments.add_argument("--runs", type=int, default=3)
    arguments.add_argument("--full", action="store_true", help="all peers read all rows in all runs")
    arguments.add_argument("--shapes", default=",".join(shape.name for shape in SHAPES))
    arguments.add_argument("--peers", default="", help="only those with one of these words in their names")
    given = arguments.parse_args()
    load = os.getloadavg()[0]
    peers = [peer for peer in PEERS if chosen(peer, given.peers)]
    measured: dict[Shape, list[Subject]] = {}
    with set_up() as setting:
        for shape in (shape for shape in SHAPES if shape.name in given.shapes.split(",")):
            rows = round(given.rows * shape.share)
            measured[shape] = measure(setting, shape, rows, peers, runs=given.runs, full=given.full)
            section = result(circumstances(load, setting.versions()), measured, large=given.rows >= _MANY)
            section.write(given.results)  # What is done is done, should the rest take too long.
    section.print()


def chosen(peer: Peer, words: str) -> bool:
    """Say whether a peer is wanted; those that the bars are about always are."""
    wanted = not words or any(word in peer.name for word in words.split(","))
    return wanted or peer.name in {NULL_PEER, PLAIN_PEER}


def measure(
    setting: Setting, shape: Shape, rows: int, peers: Sequence[Peer], *, runs: int, full: bool
) -> list[Subject]:
    """Have all of them load a table, in turns, and each round in another order."""
    few = rows if full else max(1, round(rows * _SLOW_SHARE))
    tables = {rows: shape.name, few: shape.name if full else f"{shape.name}_few", _WARM_ROWS: f"{shape.name}_warm"}
    for count, table in tables.items():
        fill(setting.server, table, count, shape=shape)
    ours = Subject(TIDELOG, rows)
    others = [(peer, Subject(peer.name, few if peer.pace == "slow" else rows)) for peer in peers]
    warm_up(setting, tables[_WARM_ROWS], [*others])
    for round_ in range(runs):
        turns = [each for each in others if full or each[0].pace == "fast" or not round_]
        for number, (peer, subject) in enumerate(turns):
            if number == round_ * len(turns) // runs:
                load_worker(setting, shape.name, ours)
            if not subject.failed:
                load_peer(setting, tables[subject.rows], peer, subject)
    compare(setting, shape.name)
    setting.server.run(f"DROP TABLE {', '.join(tables.values())}")
    return [ours, *(subject for _, subject in others)]


def warm_up(setting: Setting, table: str, others: Sequence[tuple[Peer, Subject]]) -> None:
    """Have all of them write a small table, so that none is installed, or loaded for the first time, in a run."""
    report("warming up …")
    load_worker(setting, table, Subject(TIDELOG, _WARM_ROWS))
    for peer, subject in others:
        trial = Subject(peer.name, _WARM_ROWS)
        load_peer(setting, table, peer, trial)
        subject.failed = trial.failed


def load_peer(setting: Setting, table: str, peer: Peer, subject: Subject) -> None:
    """Have a peer write a table, and count its rows the first time."""
    report(f"{peer.name} …")
    directory = setting.directory(directory_of(peer))
    try:
        pipe = peer.pipe(Task(setting.server, table, directory))
        took = run(pipe, setting.server, setting.scratch / "log", seconds=_PEER_SECONDS)
        if peer.name != NULL_PEER and not subject.runs:
            check_count(directory, subject.rows)
            subject.size = sum(path.stat().st_size for path in written(directory))
    except ToolFailedError as error:
        report(f"{error}")
        subject.failed = error.brief
        return
    subject.runs.append(took)
    report(f"  {took.seconds:.2f} s")


def check_count(directory: Path, rows: int) -> None:
    """Count what a peer has written.

    Raises:
        ToolFailedError: it is not all.
    """
    found = sum(1 for _ in lines(directory))
    if found != rows:
        raise ToolFailedError(f"{found:,} rows of {rows:,} were written")


def directory_of(peer: Peer) -> str:
    """Return the name of the directory that a peer writes to; only psql's output is kept, to be compared."""
    return "plain" if peer.name == PLAIN_PEER else "peer"


def load_worker(setting: Setting, table: str, subject: Subject) -> None:
    """Have a worker process take the first snapshot of a table into an empty lake."""
    report(f"{TIDELOG} …")
    bucket = f"{table}-{len(subject.runs)}".replace("_", "-")
    setting.make_lake(bucket)
    meter = Meter(setting.server, setting.scratch / "log")
    said = meter.converse(on_lambda("worker"), setting.environment(bucket), f"public.{table}")
    took = meter.stop()
    if said["rows"] != subject.rows:
        sys.exit(f"the worker wrote {said['rows']} rows of {subject.rows}")
    subject.runs.append(took)
    subject.warm.append(said["warm"])
    subject.size = said["bytes"]
    report(f"  {took.seconds:.2f} s")


def compare(setting: Setting, table: str) -> None:
    """Compare the lines of the worker's first run with psql's last, byte for byte."""
    client, bucket = setting.store.client, f"{table}-0"
    (segment,) = client.list_objects_v2(Bucket=bucket, Prefix="data/")["Contents"]
    body = client.get_object(Bucket=bucket, Key=segment["Key"])["Body"]
    with (setting.scratch / "plain" / "rows.jsonl.gz").open("rb") as peer:
        same = digest(iter(lambda: peer.read(MEGABYTE), b"")) == digest(body.iter_chunks(MEGABYTE))
    if not same:
        sys.exit(f"the worker's lines of {table} are not psql's")


def digest(chunks: Iterable[bytes]) -> str:
    """Return a checksum of what is compressed in some chunks."""
    inflate, checksum = zlib.decompressobj(31), hashlib.sha256()
    for chunk in chunks:
        checksum.update(inflate.decompress(chunk))
    return checksum.hexdigest()


def result(where: str, measured: dict[Shape, list[Subject]], *, large: bool) -> Section:
    """Say what came of the tables that are done."""
    grids = [grid(shape, subjects) for shape, subjects in measured.items()]
    part, title = ("large_load", "First load of a large table") if large else ("first_load", "First load")
    return Section(part, title, where, grids, bars(measured), notes(measured))


def grid(shape: Shape, subjects: Sequence[Subject]) -> Grid:
    """Return the table of a shape, the fastest first."""
    plain = next((each for each in subjects if each.name == PLAIN_PEER and each.runs), None)
    done = sorted(
        (each for each in subjects if each.runs), key=lambda each: -(each.over(plain) if plain else each.a_second())
    )
    headings = ("", "rows/s", "ratio", "client CPU µs/row", "server CPU µs/row", "peak MB", "output MB", "rows", "runs")
    rows: list[tuple[str, ...]] = []
    for each in done:
        ratio = f"{each.over(plain):.2f}" if plain else ""
        costs = (f"{each.micros('client'):.2f}", f"{each.micros('server'):.2f}", f"{each.peak:,.0f}")
        size = f"{each.size / MEGABYTE:,.1f}" if each.size else ""
        rows.append((each.name, f"{each.a_second():,.0f}", ratio, *costs, size, f"{each.rows:,}", str(len(each.runs))))
        if each.warm and plain:
            speed = each.a_second(warm=True)
            ratio = f"{each.over(plain, warm=True):.2f}"
            rows.append((f"{each.name}, from when it is told", f"{speed:,.0f}", ratio, *[""] * 6))
    rows += [(each.name, each.failed, *[""] * 7) for each in subjects if each.failed]
    return Grid(headings, rows, f"{shape.title}, {max(each.rows for each in subjects):,} rows:")


def bars(measured: dict[Shape, list[Subject]]) -> list[Bar]:
    """Say what was reached."""
    peak = max(subjects[0].peak for subjects in measured.values())
    found = [Bar("MB of memory of the worker, the most of all tables", peak, 128, least=False)]
    subjects = measured.get(NARROW)
    if not subjects:
        return found
    ours, *others = subjects
    ratios = ((PLAIN_PEER, 1.3), ("chdb", 0.95), ("dlt", 6), ("sling", 8))
    for name, wanted in ratios:
        rivals = [each for each in others if each.runs and each.name.startswith(name)]
        over, told = (min((ours.over(each, warm=warm) for each in rivals), default=None) for warm in (False, True))
        what = f"first load, rows/s over those of {name}" + ("'s best backend" if name == "dlt" else "")
        found.append(Bar(f"{what} ({told:.2f} from when it is told)" if told else what, over, wanted, unit=" times"))
    null = next(each for each in others if each.name == NULL_PEER)
    spared = ours.micros("server") / null.micros("server") if null.runs and null.micros("server") else None
    found.append(Bar("server CPU a row over that of plain row_to_json", spared, 0.75, least=False, unit=" times"))
    plain = next(each for each in others if each.name == PLAIN_PEER)
    if plain.runs:
        spent, theirs = ours.micros("client"), plain.micros("client")
        what = f"client CPU a row of 14 columns, as of a machine on which {PLAIN_PEER} takes {_PLAIN_MICROS} µs of it"
        what += f" (here {theirs:.2f}, and the worker {spent:.2f})"
        found.append(Bar(what, spent / theirs * _PLAIN_MICROS, 1.6, least=False, unit=" µs"))
    return found


def notes(measured: dict[Shape, list[Subject]]) -> list[str]:
    """Say what the table does not."""
    slowest = [each for subjects in measured.values() for each in subjects if each.runs]
    few = {each.name for each in slowest if each.rows < max(other.rows for other in slowest) * _SLOW_SHARE * 2}
    said = (
        "Medians of as many runs as the last column says, in turns. Ratios are of the rows a second of psql and gzip, "
        "round by round: they are the medians of those, since the machine may be slower in one round than in another. "
        "Processes are counted from their start to their end, memory is the most that one process has held, of a pipe "
        "the sum. The worker's lines and psql's were compared: they are the same, byte for byte. The rows that each "
        "has written were counted."
    )
    return [said, *(["Slow ones have read fewer rows of the same kind, as the column `rows` says."] if few else [])]


if __name__ == "__main__":
    main()
