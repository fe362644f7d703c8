"""Dashboards and saved queries: what would show nothing on AWS fails a deployment here."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from tidelog_sandbox import insights, metrics
from tidelog_sandbox.errors import SandboxError
from tidelog_sandbox.stacks import Api

_WIDGETS = {"metric", "log", "text", "alarm"}
_OF_LAMBDA = {*metrics.OF_FUNCTIONS, "ConcurrentExecutions"}
_LARGEST = 1024 * 1024  # characters of a body


def check_dashboard(api: Api, body: str) -> None:
    """Do nothing for a dashboard whose widgets are about what there is.

    Raises:
        SandboxError: its body is not JSON or too long, or a widget names a metric, queue, function, log group or alarm
            that is not there, or has a query that is none.
    """
    try:
        widgets = json.loads(body)["widgets"]
    except (ValueError, KeyError, TypeError) as error:
        raise SandboxError(f"read the dashboard: its body is not JSON with widgets: {error}") from error
    if len(body) > _LARGEST:
        raise SandboxError(
            f"read the dashboard: its body has {len(body):,} characters, and CloudWatch takes {_LARGEST:,}"
        )
    used: set[tuple[str, str, str, str]] = set()
    for widget in widgets:
        if widget["type"] not in _WIDGETS:
            raise SandboxError(f"read the dashboard: there are no widgets of type {widget['type']}")
        about = widget["properties"]
        if widget["type"] == "metric":
            used |= {subject for each in metrics_of(about) if (subject := _subject(*each))}
        elif widget["type"] == "log":
            query = insights.read(about["query"])
            check_log_groups(api, query.sources or about.get("logGroupNames", ()))
        elif widget["type"] == "alarm":
            names = [arn.rpartition(":alarm:")[2] for arn in about["alarms"]]
            found = api.call("cloudwatch", "DescribeAlarms", AlarmNames=names)["MetricAlarms"]
            if missing := set(names) - {alarm["AlarmName"] for alarm in found}:
                raise SandboxError(f"read the dashboard: there is no alarm {', '.join(sorted(missing))}")
    for service, operation, dimension, name in sorted(used):
        api.call(service, operation, **{dimension: name})  # raises where there is none


def check_query(api: Api, properties: Mapping[str, Any]) -> None:
    """Do nothing for a saved query that can be run.

    Raises:
        SandboxError: it is none, or a log group is not there.
    """
    insights.read(properties["QueryString"])
    check_log_groups(api, properties.get("LogGroupNames", ()))


def check_log_groups(api: Api, names: Any) -> None:
    """Do nothing where all log groups are there.

    Raises:
        SandboxError: naming one that is not.
    """
    for name in names:
        found = api.call("logs", "DescribeLogGroups", logGroupNamePrefix=name)["logGroups"]
        if name not in [group["logGroupName"] for group in found]:
            raise SandboxError(f"read the query: there is no log group {name}")


def metrics_of(properties: Mapping[str, Any]) -> Iterator[tuple[str, str, dict[str, str]]]:
    """The namespace, name and dimensions of each metric of a widget."""
    for row in properties.get("metrics", ()):
        namespace, name, *pairs = [each for each in row if isinstance(each, str)]
        yield namespace, name, dict(zip(pairs[::2], pairs[1::2], strict=True))


def _subject(namespace: str, name: str, dimensions: Mapping[str, str]) -> tuple[str, str, str, str] | None:
    """The call that finds what a metric of AWS is about; None of a stack's own, which its functions make by running.

    Raises:
        SandboxError: there is no such metric.
    """
    known = {
        "AWS/SQS": (metrics.OF_QUEUES, "QueueName", "sqs", "GetQueueUrl"),
        "AWS/Lambda": (_OF_LAMBDA, "FunctionName", "lambda", "GetFunction"),
    }
    if namespace not in known:
        if namespace.startswith("AWS/"):
            raise SandboxError(f"read the dashboard: the sandbox knows no metrics of {namespace}")
        return None
    names, dimension, service, operation = known[namespace]
    if name not in names or dimensions.keys() != {dimension}:
        raise SandboxError(f"read the dashboard: there is no metric {namespace} {name} by {', '.join(dimensions)}")
    return service, operation, dimension, dimensions[dimension]
