"""A worker: a process of its own that loads what its function does, and works off what it is told to."""

from __future__ import annotations

import importlib
import json
import os
import re
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tidelog.letters import Received
from tidelog.messages import encode, ingest
from tidelog.runs import Run
from tidelog.tables import TableName

CHUNKS = "chunks"
_FUNCTION = Path(__file__).parents[1] / "functions" / "worker"
_SECONDS = 890


def main() -> None:
    """Get ready, and run the tables whose names come in, one by one; or, for `CHUNKS`, all chunks that are sent."""
    sys.path.insert(0, str(_FUNCTION))
    worker = importlib.import_module("app").worker  # the function, with all that it loads: a cold start does that
    loaded = time.perf_counter()  # the system's clock: it is the same in every process
    worker()
    print(json.dumps({"loaded": loaded, "ready": time.perf_counter()}), flush=True)
    for line in map(str.strip, sys.stdin):
        spent = time.process_time()
        done = [run(worker(), message) for message in (chunks() if line == CHUNKS else [asked(line)])]
        said = {
            "rows": sum(each.rows for each in done),
            "bytes": sum(each.bytes for each in done),
            "runs": len(done),
            "key": done[-1].key if done else None,
            "strategy": done[-1].strategy if done else "",
            "chunks": done[-1].chunks if done else 0,
            "peak": peak_memory(),
            "cpu": time.process_time() - spent,
            "done": time.perf_counter(),
        }
        print(json.dumps(said), flush=True)


def run(worker: Any, message: Received) -> Run:
    """Work off a message; what fails ends the process."""
    done = worker.work_off(message, seconds=_SECONDS, run="bench")
    if not isinstance(done, Run):
        sys.exit(f"{message.body}: {done.error!r}")
    return done


def asked(table: str) -> Received:
    """Return a message that asks for a table in which, as a tick has counted, something has changed."""
    message = ingest(TableName.parse(table), None, 0, tally=uuid.uuid4().hex[:16])
    return Received("bench", "", encode(message), "", table, 1, "")


def chunks() -> Iterator[Received]:
    """Yield the messages of the queue of chunks until there are no more; each is deleted when it is worked off."""
    import boto3  # noqa: PLC0415  # other runs do without

    sqs, url = boto3.client("sqs"), os.environ["TIDELOG_BACKFILL_QUEUE_URL"]
    while found := sqs.receive_message(QueueUrl=url).get("Messages", []):
        (message,) = found
        yield Received(message["MessageId"], message["ReceiptHandle"], message["Body"], "backfill.fifo", "", 1, "")
        sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])


def peak_memory() -> float:
    """Return the most MB that this process has held, not counting what its parent held when it began."""
    status = Path("/proc/self/status")
    if status.exists():
        found = re.search(r"VmHWM:\s+(\d+) kB", status.read_text())
        return int(found[1]) * 1024 / 10**6 if found else 0
    import resource  # noqa: PLC0415  # not on Linux

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 10**6


if __name__ == "__main__":
    main()
