"""The sandbox as a whole: it ends with whoever began it, and others can use it meanwhile."""

import json
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.sandbox.conftest import TOY
from tests.tide import wait_for
from tidelog_sandbox import Invocation, Sandbox
from tidelog_sandbox.cloud import Cloud


def test_another_process_reaches_the_cloud_by_its_environment(sandbox: Sandbox) -> None:
    """As the aws command does."""
    code = "import boto3; print(boto3.client('s3').list_buckets()['Buckets'][0]['Name'])"
    found = subprocess.run(
        [sys.executable, "-c", code], env=dict(sandbox.environment), capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == sandbox.outputs["LakeBucket"]


def test_a_profile_of_the_user_is_not_looked_for(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would be missing, or lead to another cloud."""
    monkeypatch.setenv("AWS_PROFILE", "no such profile")
    assert cloud.client("kms").list_keys()["Keys"] == []


BEGIN = f"""
import sys, json, time
from pathlib import Path
from tidelog_sandbox import Postgres, Sandbox
with Postgres() as postgres, Sandbox(Path({str(TOY)!r})) as sandbox:
    sandbox.start_mappings()
    pid = sandbox.invoke(sandbox.outputs["Plain"], {{"do": "tell"}}).response["pid"]
    print(json.dumps([pid, sandbox.cloud.pid, postgres.pid, str(postgres.directory)]), flush=True)
    time.sleep(60)
"""


def test_nothing_outlives_the_process_that_began_it() -> None:
    """Neither cloud nor function nor database, even if it is killed; a temporary database is removed."""
    with subprocess.Popen(
        [sys.executable, "-c", BEGIN], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdout
        *pids, directory = json.loads(process.stdout.readline())
        assert all(psutil.pid_exists(pid) for pid in pids)
        process.kill()
    deadline = time.monotonic() + 10
    while (left := [pid for pid in pids if runs(pid)]) or Path(directory).exists():
        assert time.monotonic() < deadline, f"still there: {left or directory}"
        time.sleep(0.05)


def runs(pid: int) -> bool:
    """Whether a process runs; one that nobody has buried does not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_closing_ends_what_is_under_way(tmp_path: Path) -> None:
    """At once: mapped functions at work, polls, schedules, alarms. The lake's files stay."""
    ended: list[Invocation] = []
    with Sandbox(TOY, lake=tmp_path, stack="closing") as sandbox:
        sandbox.client("s3").put_object(Bucket=sandbox.outputs["LakeBucket"], Key="data/x", Body=b"x")
        sandbox.on_invocation(ended.append)
        sandbox.start_alarms(minute=0.5)
        sandbox.start_mappings()
        sandbox.start_schedules()
        wait_for(lambda: ended)
        sandbox.client("sqs").send_message(  # Not before: it is visible again after a second.
            QueueUrl=sandbox.outputs["OrdersUrl"], MessageBody='{"sleep": 2.5}', MessageGroupId="g"
        )
        wait_for(lambda: sandbox.functions[sandbox.outputs["Worker"]].busy)
        time.sleep(0.3)
        begun = time.monotonic()
    assert time.monotonic() - begun < 2  # less than the function had left
    assert [invocation.kind for invocation in ended] == ["success", "exit"]
    assert (tmp_path / "data/x").read_bytes() == b"x"
