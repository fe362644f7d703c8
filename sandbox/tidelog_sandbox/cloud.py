"""AWS on this machine: a moto server in a process of its own, and clients for it."""

import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tidelog_sandbox.errors import SandboxError

ACCOUNT = "123456789012"
REGION = "eu-west-2"
_OWN = {"AWS_ACCESS_KEY_ID": "sandbox", "AWS_SECRET_ACCESS_KEY": "sandbox"}
"""Of who may do anything: the operator."""
# How botocore finds two of its settings: nowhere. A profile that the user has chosen is not for this cloud.
_NO_FILES = {"profile": (None, None, None, None), "config_file": (None, None, os.devnull, None)}


class Cloud:
    """A running server. It ends with its context, or with this process.

    Args:
        region: where everything is.
        conflicts: whether a conditional write that met another one of the same object gets 409
            ConditionalRequestConflict, as the real S3 may answer.
    """

    def __init__(self, *, region: str = REGION, conflicts: bool = False) -> None:
        self.region = region
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  # closed by close()
        self._lock = threading.Lock()
        self._credentials: dict[str, Mapping[str, str]] = {}
        self._clients: dict[tuple[str, str], Any] = {}
        self._process = subprocess.Popen(  # noqa: S603  # this very interpreter
            [sys.executable, "-m", "tidelog_sandbox.server", *(["--conflicts"] if conflicts else [])],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            env={
                **{name: value for name, value in os.environ.items() if not name.startswith("AWS_")},
                "AWS_CONFIG_FILE": os.devnull,
                "MOTO_IAM_LOAD_MANAGED_POLICIES": "true",
                "VALIDATE_LAMBDA_S3": "false",  # the functions' code stays where it is
                "NO_PROXY": "127.0.0.1",
                "PYTHONPATH": os.pathsep.join(sys.path),
            },
            start_new_session=True,  # an interrupt from the terminal is for the parent to handle
        )
        self._endpoint: str | None = None

    @property
    def endpoint_url(self) -> str:
        """Where it listens. Waits until it does, so that a caller can do other things first."""
        with self._lock:
            if self._endpoint is None:
                self._endpoint = f"http://127.0.0.1:{self._answer('start')['port']}"
            return self._endpoint

    @property
    def pid(self) -> int:
        """The server's process."""
        return self._process.pid

    @property
    def environment(self) -> Mapping[str, str]:
        """The variables that point boto3 and the aws command at this cloud, and away from any other."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint_url,
            "AWS_REGION": self.region,
            "AWS_DEFAULT_REGION": self.region,
            **_OWN,
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def client(self, service: str, role: str = "") -> Any:
        """A boto3 client of a service, made once: with all rights, or with those of a role, by its ARN."""
        import boto3  # noqa: PLC0415  # a quarter of a second that the start of the server hides
        from botocore.config import Config  # noqa: PLC0415  # the same
        from botocore.session import Session  # noqa: PLC0415  # the same

        endpoint, credentials = self.endpoint_url, self.credentials(role) if role else _OWN
        with self._lock:
            if (service, role) not in self._clients:
                session = boto3.Session(
                    botocore_session=Session(_NO_FILES),
                    aws_access_key_id=credentials["AWS_ACCESS_KEY_ID"],
                    aws_secret_access_key=credentials["AWS_SECRET_ACCESS_KEY"],
                    aws_session_token=credentials.get("AWS_SESSION_TOKEN"),
                    region_name=self.region,
                )
                self._clients[service, role] = session.client(
                    service,  # type: ignore[call-overload]  # one of many
                    endpoint_url=endpoint,
                    config=Config(max_pool_connections=50, retries={"max_attempts": 1}, proxies={}),
                )
            return self._clients[service, role]

    def credentials(self, role: str) -> Mapping[str, str]:
        """The variables with the credentials of a role, by its ARN. What it may do is decided at each call."""
        if role not in self._credentials:
            made = self.client("sts").assume_role(RoleArn=role, RoleSessionName="sandbox")["Credentials"]
            self._credentials[role] = {
                "AWS_ACCESS_KEY_ID": made["AccessKeyId"],
                "AWS_SECRET_ACCESS_KEY": made["SecretAccessKey"],
                "AWS_SESSION_TOKEN": made["SessionToken"],
            }
        return self._credentials[role]

    def calls(self) -> list[tuple[str, str, str, bool]]:
        """What roles have asked for, allowed or not, since this was last asked; the first time nothing.

        Each call once: the role's name, the action as in a policy, the resource's ARN, and whether it makes an object
        that may be there already.
        """
        with self._lock:
            return [tuple(call) for call in self._command("tell the calls of roles", {"calls": True})["calls"]]

    def queue_url(self, arn: str) -> str:
        """The address of a queue."""
        *_, account, name = arn.split(":")
        return f"{self.endpoint_url}/{account}/{name}"

    def mirror(self, bucket: str, directory: Path) -> None:
        """Keep the objects of a bucket as files of a directory, beginning with those that lie there.

        The bucket must be empty; it keeps no versions any more.
        """
        with self._lock:
            self._command("mirror the lake", {"mirror": str(directory.resolve()), "bucket": bucket, "account": ACCOUNT})

    def disturb(
        self,
        calls: str,
        what: str,
        *,
        carried_out: bool = False,
        share: float = 1,
        times: int | None = None,
        seed: int = 0,
    ) -> None:
        """Let calls of functions go wrong from now on; see :class:`~tidelog_sandbox.faults.Disturbance`."""
        disturbance = {"calls": calls, "what": what, "carried_out": carried_out}
        with self._lock:
            self._command("disturb", {"disturb": {**disturbance, "share": share, "times": times, "seed": seed}})

    def calm(self) -> list[int]:
        """Let all calls go well again, and give how many each disturbance has struck."""
        with self._lock:
            struck: list[int] = self._command("calm", {"calm": True})["struck"]
        return struck

    def open_door(self, port: int) -> None:
        """Answer Lambda's Invoke from now on by asking at a port."""
        with self._lock:
            self._command("answer invocations", {"door": port})

    def emails(self, first: int = 0) -> list[dict[str, str]]:
        """The emails that were sent, oldest first, but for so many of the first."""
        with self._lock:
            emails: list[dict[str, str]] = self._command("read the emails", {"emails": first})["emails"]
            return emails

    def queue_metrics(self) -> Mapping[str, Mapping[str, float]]:
        """What CloudWatch would be told of each queue now, by the names of the queue and of the metric."""
        with self._lock:
            command = {"metrics": self.region, "account": ACCOUNT}
            metrics: dict[str, dict[str, float]] = self._command("measure the queues", command)["metrics"]
            return metrics

    def close(self) -> None:
        """End the server. Nothing that it held survives."""
        for client in self._clients.values():
            client.close()
        if self._process.stdin:
            self._process.stdin.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout:
            self._process.stdout.close()
        self._log.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _command(self, operation: str, command: Mapping[str, object]) -> dict[str, Any]:
        assert self._process.stdin  # noqa: S101  # for the type: it is a pipe
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()
        return self._answer(operation)

    def _answer(self, operation: str) -> dict[str, Any]:
        assert self._process.stdout  # noqa: S101  # for the type: it is a pipe
        line = self._process.stdout.readline()
        answer: dict[str, Any] = json.loads(line) if line else {"error": f"the server ended:\n{self._last_words()}"}
        if "error" in answer:
            raise SandboxError(f"{operation}: {answer['error']}")
        return answer

    def _last_words(self) -> str:
        self._log.seek(0, os.SEEK_END)
        self._log.seek(max(0, self._log.tell() - 4000))
        return self._log.read().decode(errors="replace")
