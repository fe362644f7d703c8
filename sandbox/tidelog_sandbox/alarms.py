"""CloudWatch's alarms at work: their metrics are recorded, and their states follow.

What is to be done on a change of state, such as an email, the cloud itself does: see :mod:`tidelog_sandbox.monitoring`.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from tidelog_sandbox import metrics
from tidelog_sandbox.cloud import Cloud
from tidelog_sandbox.errors import SandboxError
from tidelog_sandbox.evaluation import COMPARISONS, STATISTICS, Alarm, evaluate
from tidelog_sandbox.functions import Invocation
from tidelog_sandbox.metrics import Datapoint, Memory, Metric

_GAUGES = frozenset({"Maximum", "Minimum", "Average"})
_RECHECK_SECONDS = 0.05


class Watch:
    """The evaluation of all metric alarms of a cloud, again and again, in a thread of its own.

    Args:
        cloud: where the alarms and the queues are.
        functions: the names of the functions, whose invocations and log lines it is told of.
        failed: is called with what went wrong in the thread, which then ends.
        minute: how many seconds a minute of an alarm's period lasts. All values stay what they are.

    Raises:
        SandboxError: there is an alarm that it cannot evaluate as CloudWatch would.
    """

    def __init__(
        self,
        cloud: Cloud,
        functions: Collection[str],
        failed: Callable[[Exception], object],
        minute: float = 60.0,
    ) -> None:
        self._cloud = cloud
        self._functions = functions
        self._failed = failed
        self._minute = minute
        self._interval = max(0.1, min(1.0, minute / 30))
        self._heard: deque[tuple[datetime, Invocation | str]] = deque()
        self._memory = Memory()
        self._since = datetime.now(UTC)
        self._told = float("-inf")
        self._stopping = threading.Event()
        self._alarms(cloud.queue_metrics())  # what cannot be evaluated is refused here
        self._thread = threading.Thread(target=self._watch, name="alarms", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Evaluate no more, and wait until that is so."""
        self._stopping.set()
        self._thread.join()

    def hear(self, invocation: Invocation) -> None:
        """Take note of a finished invocation; returns at once."""
        self._note(invocation)

    def hear_line(self, _function: str, line: str) -> None:
        """Take note of a line of a log; returns at once."""
        if metrics.EMBEDDED in line:
            self._note(line)

    def _note(self, what: Invocation | str) -> None:
        if self._thread.is_alive():  # or nobody would ever take it
            self._heard.append((datetime.now(UTC), what))

    def _watch(self) -> None:
        try:
            while not self._stopping.is_set():
                self._evaluate()
                self._stopping.wait(self._interval)
        except Exception as error:  # noqa: BLE001  # this thread has nobody who would see it
            if not self._stopping.is_set():  # when all ends, what is under way fails
                self._failed(error)

    def _evaluate(self) -> None:
        queues = self._cloud.queue_metrics()
        alarms = self._alarms(queues)
        self._memory.remember((alarm.metric, alarm.window) for alarm, _ in alarms)
        told = list(self._taken())
        now = datetime.now(UTC)
        measured = list(metrics.of_queues(queues, now))
        self._memory.add([*told, *measured], now)
        if time.monotonic() >= self._told + self._minute:  # as SQS does, once a minute
            self._told = time.monotonic()
            told += measured
        cloudwatch = self._cloud.client("cloudwatch")
        for request in metrics.requests(told):
            cloudwatch.put_metric_data(**request)
        for alarm, state in alarms:
            verdict = evaluate(alarm, self._memory.of(alarm.metric), now, self._since)
            if verdict and verdict.state != state:
                cloudwatch.set_alarm_state(AlarmName=alarm.name, StateValue=verdict.state, StateReason=verdict.reason)

    def _taken(self) -> Iterator[Datapoint]:
        """What was heard since it was last taken."""
        while self._heard:
            at, what = self._heard.popleft()
            yield from metrics.of_line(what, at) if isinstance(what, str) else metrics.of_invocation(what, at)

    def _alarms(self, queues: Collection[str]) -> list[tuple[Alarm, str]]:
        """The alarms with their states, as they are now."""
        known = {"AWS/SQS": queues, "AWS/Lambda": self._functions}
        return [(_read(alarm, known, self._minute), alarm["StateValue"]) for alarm in _described(self._cloud)]


def states(cloud: Cloud) -> dict[str, str]:
    """The state of every alarm, by its name."""
    return {alarm["AlarmName"]: alarm["StateValue"] for alarm in _described(cloud)}


def wait_for(cloud: Cloud, part: str, state: str, timeout: float, check: Callable[[], object]) -> str:
    """Wait until an alarm has a state, and give its full name.

    Args:
        cloud: where the alarms are.
        part: of the alarm's name.
        state: OK, ALARM or INSUFFICIENT_DATA.
        timeout: seconds.
        check: is called while waiting; what it raises ends the wait.

    Raises:
        TimeoutError: that is not so in time; the message says what the states are.
        SandboxError: there is not exactly one alarm whose name has that part.
    """
    end = time.monotonic() + timeout
    while True:
        found = states(cloud)
        match [name for name in found if part in name]:
            case [name]:
                if found[name] == state:
                    return name
            case names:
                raise SandboxError(f"wait for alarm {part}: {len(names)} have that in their names, of {list(found)}")
        check()
        if time.monotonic() >= end:
            raise TimeoutError(f"alarm {name} is not {state} after {timeout:g} seconds; the alarms are {found}")
        time.sleep(_RECHECK_SECONDS)


def _described(cloud: Cloud) -> list[dict[str, Any]]:
    pages = cloud.client("cloudwatch").get_paginator("describe_alarms").paginate()
    return [alarm for page in pages for alarm in page["MetricAlarms"]]


def _read(alarm: Mapping[str, Any], known: Mapping[str, Collection[str]], minute: float) -> Alarm:
    """An alarm as CloudWatch describes it. Raises SandboxError if it could not be evaluated as CloudWatch would."""
    if alarm.get("Metrics"):
        raise _refused(alarm, "it does arithmetic with metrics")
    if alarm.get("Statistic") not in STATISTICS:
        raise _refused(alarm, f"it has the statistic {alarm.get('ExtendedStatistic') or alarm.get('Statistic')}")
    if alarm["ComparisonOperator"] not in COMPARISONS:
        raise _refused(alarm, f"it compares by {alarm['ComparisonOperator']}")
    dimensions = frozenset((each["Name"], each["Value"]) for each in alarm.get("Dimensions", []))
    metric = Metric(alarm["Namespace"], alarm["MetricName"], dimensions)
    if fault := _fault(metric, known, alarm["Statistic"]):
        raise _refused(alarm, fault)
    actions = [*alarm.get("AlarmActions", []), *alarm.get("OKActions", []), *alarm.get("InsufficientDataActions", [])]
    for action in actions:
        if action.split(":")[2] != "sns":
            raise _refused(alarm, f"its action {action} is not a topic")
    return Alarm(
        name=alarm["AlarmName"],
        metric=metric,
        unit=alarm.get("Unit"),
        statistic=alarm["Statistic"],
        period=timedelta(seconds=alarm["Period"] / 60 * minute),
        periods=alarm["EvaluationPeriods"],
        breaches=alarm.get("DatapointsToAlarm"),
        comparison=alarm["ComparisonOperator"],
        threshold=alarm["Threshold"],
        missing=alarm.get("TreatMissingData") or "missing",
    )


def _fault(metric: Metric, known: Mapping[str, Collection[str]], statistic: str) -> str:
    """Why an alarm on a metric would never see what CloudWatch's sees; empty if it would."""
    dimensions = dict(metric.dimensions)
    match metric.namespace:
        case "AWS/SQS":
            if statistic not in _GAUGES:
                return f"queues are measured more often here than a minute, which makes {statistic} another"
            subject, made = "QueueName", metrics.OF_QUEUES
        case "AWS/Lambda":
            subject, made = "FunctionName", metrics.OF_FUNCTIONS
        case namespace:
            return f"nothing here makes metrics of {namespace}" if namespace.startswith("AWS/") else ""
    names = known[metric.namespace]
    if metric.name not in made:
        return f"nothing here makes the metric {metric.namespace} {metric.name}"
    if dimensions.keys() != {subject} and (dimensions or subject == "QueueName"):
        return f"{metric.namespace} has the one dimension {subject}, and not {sorted(dimensions)}"
    if dimensions and dimensions[subject] not in names:
        return f"there is no {subject} {dimensions[subject]}; there are {', '.join(sorted(names))}"
    return ""


def _refused(alarm: Mapping[str, Any], why: str) -> SandboxError:
    return SandboxError(f"watch alarm {alarm['AlarmName']}: the sandbox cannot evaluate it, because {why}")
