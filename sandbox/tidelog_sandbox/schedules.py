"""EventBridge Scheduler: starts functions when their schedules' expressions say so.

It invokes asynchronously: what comes of an invocation is between Lambda and the function, which is tried again. The
schedule's own dead letters are what could not be brought to the function at all.
"""

import json
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from datetime import UTC, datetime

from tidelog_sandbox.deployment import ScheduleConfiguration
from tidelog_sandbox.destinations import Condition, Send, record
from tidelog_sandbox.errors import SandboxError
from tidelog_sandbox.expressions import occurrences
from tidelog_sandbox.functions import Function

RETRY_SECONDS = (60.0, 120.0)
"""How long Lambda waits before it makes an asynchronous invocation again that failed."""


class Ticker:
    """The firing of one schedule, in a thread of its own.

    Args:
        configuration: the schedule.
        function: what it starts.
        failed: is called with what the function is not to blame for, unless the schedule has a queue for that.
        send: sends to the schedule's dead letters.
        give_up: sends to the function's on-failure destination; without it, `send` does.
        admit: is called before the function is started, and raises SandboxError if the schedule may not do that.
        now: the time; it must know its time zone.
        retry_seconds: how long to wait before each further attempt at an invocation that failed.
    """

    def __init__(
        self,
        configuration: ScheduleConfiguration,
        function: Function,
        failed: Callable[[Exception], object],
        send: Send,
        *,
        give_up: Send | None = None,
        admit: Callable[[], object] = lambda: None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        retry_seconds: tuple[float, ...] = RETRY_SECONDS,
    ) -> None:
        self.configuration = configuration
        self._function = function
        self._failed = failed
        self._send = send
        self._give_up = give_up or send
        self._admit = admit
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
            if -wait > self.configuration.maximum_age:  # the machine slept too long over this one
                self._guard(self._pass_over, moment)
                continue
            self._runs = [run for run in self._runs if run.is_alive()]
            self._runs.append(threading.Thread(target=self._guard, args=(self._fire, moment), daemon=True))
            self._runs[-1].start()

    def _guard(self, act: Callable[[datetime, str], object], moment: datetime) -> None:
        """Do what a moment of the schedule asks for, as an execution of its own, and report what goes wrong."""
        try:
            act(moment, str(uuid.uuid4()))
        except Exception as error:  # noqa: BLE001  # this thread has nobody who would see it
            if not self._stopping.is_set():  # when all ends, what is under way fails
                self._failed(error)

    def _fire(self, moment: datetime, execution: str) -> None:
        """Invoke the function until it succeeds, or Lambda would give it up."""
        configuration, begun = self.configuration, time.monotonic()
        event = payload(configuration, moment, execution)
        delays = self._retry_seconds[: configuration.retries]
        for attempt, delay in enumerate((*delays, None), start=1):
            try:
                self._admit()
                invocation = self._function.invoke(event)
            except SandboxError as error:
                if not configuration.dead_letters or self._stopping.is_set():
                    raise
                self._bury(moment, execution, {"ERROR_CODE": "ServiceUnavailable", "ERROR_MESSAGE": str(error)})
                return
            if invocation.succeeded:
                return
            too_old = delay is not None and time.monotonic() - begun + delay > configuration.event_age
            if delay is None or too_old:
                if configuration.on_failure:
                    condition: Condition = "EventAgeExceeded" if too_old else "RetriesExhausted"
                    self._give_up(
                        configuration.on_failure, record(configuration.target_arn, invocation, attempt, condition), {}
                    )
                return
            if self._stopping.wait(delay):
                return

    def _pass_over(self, moment: datetime, execution: str) -> None:
        self._bury(
            moment,
            execution,
            {
                "ERROR_CODE": "EventAgeExceeded",
                "ERROR_MESSAGE": f"The event is older than {self.configuration.maximum_age} seconds",
                "EXHAUSTED_RETRY_CONDITION": "MaximumEventAgeInSeconds",
            },
        )

    def _bury(self, moment: datetime, execution: str, reason: Mapping[str, str]) -> None:
        """Put what the function would have got among the schedule's dead letters, if it has any.

        The names of the attributes are those of EventBridge Scheduler; the error codes are not, it documents none.
        """
        if self.configuration.dead_letters:
            attributes = {
                **reason,
                "EXECUTION_ID": execution,
                "IS_PAYLOAD_TRUNCATED": "false",
                "RETRY_ATTEMPTS": "0",
                "SCHEDULED_TIME": _written(moment),
                "SCHEDULE_ARN": self.configuration.arn,
                "TARGET_ARN": self.configuration.target_arn,
            }
            body = json.dumps(payload(self.configuration, moment, execution))
            self._send(self.configuration.dead_letters, body, attributes)


def payload(configuration: ScheduleConfiguration, moment: datetime, execution: str) -> object:
    """A schedule's input, with the values of its placeholders.

    https://docs.aws.amazon.com/scheduler/latest/UserGuide/managing-schedule-context-attributes.html
    """
    text = configuration.input
    for name, value in {
        "schedule-arn": configuration.arn,
        "scheduled-time": _written(moment),
        "execution-id": execution,
        "attempt-number": "1",  # of the schedule, which reaches the function at once or never
    }.items():
        text = text.replace(f"<aws.scheduler.{name}>", value)
    return json.loads(text)


def _written(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
