"""Both functions in one process, invoked as Lambda invokes them; it says what each invocation took.

A line on its standard input is a tick's event (JSON), with which the scheduler is invoked, or `work`: all messages of
the work queue are received, and the worker is invoked with each, one after the other. Only the functions' time and
their calls of AWS count.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
from botocore.client import BaseClient

WORK = "work"
_FUNCTIONS = Path(__file__).parents[1] / "functions"


@dataclass(frozen=True, slots=True)
class Context:
    """What Lambda passes to a function besides the event."""

    function_name: str = "bench"
    memory_limit_in_mb: int = 1024
    invoked_function_arn: str = "arn:aws:lambda:eu-west-2:123456789012:function:bench"
    aws_request_id: str = "bench"

    def get_remaining_time_in_millis(self) -> int:
        """Return the time that is left."""
        return 900_000


@dataclass(slots=True)
class Bill:
    """What invocations took: seconds, of which a processor's, and calls of AWS by service and operation."""

    seconds: float = 0.0
    cpu: float = 0.0
    calls: Counter[str] = field(default_factory=Counter)

    def invoke(self, handler: Callable[..., dict[str, Any]], event: dict[str, Any]) -> dict[str, Any]:
        """Invoke a function; put it on the bill."""
        send: Any = BaseClient._make_request  # type: ignore[attr-defined]  # noqa: SLF001  # all calls go through it

        def counted(client: Any, operation: Any, *arguments: Any) -> Any:
            self.calls[f"{client.meta.service_model.service_name}.{operation.name}"] += 1
            return send(client, operation, *arguments)

        BaseClient._make_request = counted  # type: ignore[attr-defined]  # noqa: SLF001
        started, cpu = time.perf_counter(), time.process_time()
        try:
            return handler(event, Context())
        finally:
            self.seconds += time.perf_counter() - started
            self.cpu += time.process_time() - cpu
            BaseClient._make_request = send  # type: ignore[attr-defined]  # noqa: SLF001

    def said(self, **more: int) -> dict[str, Any]:
        """Return it, with more."""
        return {"seconds": self.seconds, "cpu": self.cpu, "calls": dict(self.calls), **more}


def main() -> None:
    """Invoke them as told."""
    answers = os.fdopen(os.dup(1), "w")
    sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115  # it is for the functions' logs, until the end
    scheduler, worker = load("scheduler"), load("worker")
    print("ready", file=answers, flush=True)
    for line in map(str.strip, sys.stdin):
        said = work(worker) if line == WORK else tick(scheduler, json.loads(line))
        print(json.dumps(said), file=answers, flush=True)


def load(function: str) -> Callable[..., dict[str, Any]]:
    """Return the handler of a function."""
    spec = importlib.util.spec_from_file_location(function, _FUNCTIONS / function / "app.py")
    assert spec  # noqa: S101  # for the type: there is such a file
    assert spec.loader  # noqa: S101
    module = importlib.util.module_from_spec(spec)
    sys.modules[function] = module
    spec.loader.exec_module(module)
    handler: Callable[..., dict[str, Any]] = module.handler
    return handler


def tick(scheduler: Callable[..., dict[str, Any]], event: dict[str, Any]) -> dict[str, Any]:
    """Invoke the scheduler; return what it took, and how many tables it has asked for."""
    bill = Bill()
    answer = bill.invoke(scheduler, event)
    return bill.said(tables=len(answer["tables"]), idle=answer["unchanged"])


def work(worker: Callable[..., dict[str, Any]]) -> dict[str, Any]:
    """Invoke the worker with each message there is; return what all of them took, and how many there were."""
    bill = Bill()
    count = 0
    for record in records():
        answer = bill.invoke(worker, {"Records": [record]})
        count += 1
        if answer["batchItemFailures"]:
            sys.exit(f"a message failed: {record['body']}")
    return bill.said(messages=count)


def records() -> Iterator[dict[str, Any]]:
    """Yield the messages of the work queue as an event source mapping has them, and delete each when it is done."""
    endpoint = os.environ["TIDELOG_BENCH_SQS"]  # not the one whose exchanges are counted
    sqs = boto3.client("sqs", endpoint_url=endpoint)
    url = f"{endpoint}/{os.environ['TIDELOG_WORK_QUEUE_URL'].split('/', 3)[3]}"
    arn = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    while found := sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10, AttributeNames=["All"]).get("Messages"):
        for message in found:
            yield {
                "messageId": message["MessageId"],
                "receiptHandle": message["ReceiptHandle"],
                "body": message["Body"],
                "attributes": message["Attributes"],
                "eventSourceARN": arn,
            }
            sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])


if __name__ == "__main__":
    main()
