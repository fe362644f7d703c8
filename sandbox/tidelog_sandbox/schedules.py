"""EventBridge Scheduler: starts functions when their schedules' expressions say so."""

import json
import threading
import uuid
from collections.abc import Callable
from datetime import UTC, datetime

from tidelog_sandbox.deployment import ScheduleConfiguration
from tidelog_sandbox.expressions import occurrences
from tidelog_sandbox.functions import Function

RETRY_SECONDS = (60.0, 120.0)
"""How long Lambda waits before it makes an asynchronous invocation again that failed."""


class Ticker:
    """The firing of one schedule, in a thread of its own.

    Args:
        configuration: the schedule.
        function: what it starts.
        failed: is called with what the function is not to blame for.
        now: the time; it must know its time zone.
        retry_seconds: how long to wait before each further attempt at an invocation that failed.
    """

    def __init__(
        self,
        configuration: ScheduleConfiguration,
        function: Function,
        failed: Callable[[Exception], object],
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        retry_seconds: tuple[float, ...] = RETRY_SECONDS,
    ) -> None:
        self.configuration = configuration
        self._function = function
        self._failed = failed
        self._now = now
        self._retry_seconds = retry_seconds
        self._stopping = threading.Event()
        self._times = occurrences(configuration.expression, now(), configuration.timezone)
        self._runs: list[threading.Thread] = []
        self._thread = threading.Thread(target=self._tick, name=f"schedule {configuration.arn}", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Fire no more, and wait for the invocations under way. Those that await another attempt are given up."""
        self.begin_to_stop()
        self._thread.join()
        for run in self._runs:
            run.join()

    def begin_to_stop(self) -> None:
        """Fire no more; returns at once."""
        self._stopping.set()

    def _tick(self) -> None:
        for moment in self._times:
            while (wait := (moment - self._now()).total_seconds()) > 0:
                # Waits are on a clock that stands still while the machine sleeps.
                if self._stopping.wait(min(wait, 30)):
                    return
            if self._stopping.is_set():
                return
            if -wait > self.configuration.maximum_age:
                continue  # the machine slept too long over this one
            self._runs = [run for run in self._runs if run.is_alive()]
            self._runs.append(threading.Thread(target=self._fire, args=(moment,), daemon=True))
            self._runs[-1].start()

    def _fire(self, moment: datetime) -> None:
        execution = str(uuid.uuid4())
        delays = self._retry_seconds[: self.configuration.retries]
        for attempt, delay in enumerate((*delays, None), start=1):
            try:
                if self._function.invoke(payload(self.configuration, moment, execution, attempt)).succeeded:
                    return
            except Exception as error:  # noqa: BLE001  # this thread has nobody who would see it
                if not self._stopping.is_set():  # when all ends, what is under way fails
                    self._failed(error)
                return
            if delay is None or self._stopping.wait(delay):
                return


def payload(configuration: ScheduleConfiguration, moment: datetime, execution: str, attempt: int = 1) -> object:
    """A schedule's input, with the values of its placeholders.

    https://docs.aws.amazon.com/scheduler/latest/UserGuide/managing-schedule-context-attributes.html
    """
    text = configuration.input
    for name, value in {
        "schedule-arn": configuration.arn,
        "scheduled-time": moment.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "execution-id": execution,
        "attempt-number": str(attempt),
    }.items():
        text = text.replace(f"<aws.scheduler.{name}>", value)
    return json.loads(text)
