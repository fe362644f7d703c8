"""The sandbox: a template deployed on this machine, its functions, queues and schedules at work."""

import json
import threading
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tidelog_sandbox import alarms, deployment
from tidelog_sandbox.cloud import REGION, Cloud
from tidelog_sandbox.credentials import secret_content
from tidelog_sandbox.destinations import sender
from tidelog_sandbox.emails import Email, Mailbox
from tidelog_sandbox.errors import SandboxError
from tidelog_sandbox.functions import Function, Invocation, Listener, LogListener
from tidelog_sandbox.invocations import Door, may_invoke
from tidelog_sandbox.mappings import Poller
from tidelog_sandbox.schedules import Ticker

_RECHECK_SECONDS = 0.05


class Sandbox:
    """A deployed stack, from the beginning of the context to its end.

    Args:
        template: the SAM template; its code is run where it lies.
        parameters: of the template.
        database: a connection string, or the content of the secret (RDS format: engine, host, port, dbname, username,
            password). It becomes a secret, whose ARN is the parameter ``DatabaseSecretArn``.
        lake: a directory that the bucket of the output ``LakeBucket`` is a mirror of.
        stack: the stack's name.
        environment: variables for every function, over the template's.
        conflicts: see :class:`~tidelog_sandbox.cloud.Cloud`.
        region: see :class:`~tidelog_sandbox.cloud.Cloud`.

    Raises:
        SandboxError: the database's address is none; on entering the context, something could not be started, or the
            template could not be deployed.
    """

    def __init__(
        self,
        template: Path,
        *,
        parameters: Mapping[str, str] | None = None,
        database: str | Mapping[str, object] | None = None,
        lake: Path | None = None,
        stack: str = "tidelog",
        environment: Mapping[str, str] | None = None,
        conflicts: bool = False,
        region: str = REGION,
    ) -> None:
        self._template = template
        self._parameters = dict(parameters or {})
        self._secret = None if database is None else secret_content(database)
        self._database: dict[str, str] = {}
        self._lake = lake
        self._stack = stack
        self._variables = dict(environment or {})
        self._conflicts = conflicts
        self._region = region
        self._listeners: list[Listener] = []
        self._log_listeners: list[LogListener] = []
        self._functions: dict[str, Function] = {}
        self._pollers: list[Poller] = []
        self._tickers: list[Ticker] = []
        self._watch: alarms.Watch | None = None
        self._door: Door | None = None
        self._changed = threading.Condition()
        self._changes = 0
        self._failures: list[Exception] = []

    def __enter__(self) -> Self:
        self.cloud = Cloud(region=self._region, conflicts=self._conflicts)
        self._mailbox = Mailbox(self.cloud)
        try:
            self._deploy()
        except BaseException:
            self.cloud.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End everything at once: invocations under way fail, messages in the queues are gone."""
        for poller in self._pollers:
            poller.begin_to_stop()
        for ticker in self._tickers:
            ticker.begin_to_stop()
        for function in self._functions.values():
            function.close()
        self.stop_alarms()
        if self._door:
            self._door.close()
        self.cloud.close()  # before the pollers are awaited: their requests end with it
        self.stop_schedules()
        self.stop_mappings()

    @property
    def endpoint_url(self) -> str:
        """Where the cloud listens."""
        return self.cloud.endpoint_url

    @property
    def environment(self) -> Mapping[str, str]:
        """The variables that point boto3 and the aws command at the cloud."""
        return self.cloud.environment

    @property
    def outputs(self) -> Mapping[str, str]:
        """The stack's outputs."""
        return self.deployment.outputs

    @property
    def parameters(self) -> Mapping[str, str]:
        """The parameters that it was deployed with, but for those with their default."""
        return self._parameters

    @property
    def functions(self) -> Mapping[str, Function]:
        """The functions, by name."""
        return self._functions

    def client(self, service: str) -> Any:
        """A boto3 client of a service."""
        return self.cloud.client(service)

    def on_invocation(self, listener: Listener) -> None:
        """Call a listener with every finished invocation of any function, in the thread that made it."""
        self._listeners.append(listener)

    def on_log(self, listener: LogListener) -> None:
        """Call a listener with a function's name and each line that it writes, as it is written."""
        self._log_listeners.append(listener)

    def update(self, template: Path, **parameters: str) -> None:
        """Update the stack to another template, with some other parameters. Its mappings and schedules have to rest.

        Raises:
            SandboxError: the template could not be deployed.
        """
        self._parameters |= parameters
        translated = deployment.translate(template, self._parameters, self._region)
        given = self._parameters | self._database
        self._take(deployment.update(self.cloud, translated, self._stack, given))

    def invoke(self, function: str, payload: Any) -> Invocation:
        """Invoke a function, by name or ARN, and wait for it. What it raises is in the result.

        Raises:
            SandboxError: there is no such function.
        """
        return self._function(function).invoke(payload)

    def start_mappings(self) -> None:
        """Begin to work off the queues that are mapped to functions."""
        if not self._pollers:
            self._pollers = [
                Poller(self.cloud, mapping, self._function(mapping.function_arn), self._note_change, self._failed)
                for mapping in self.deployment.mappings
            ]

    def stop_mappings(self) -> None:
        """Take no more messages from the queues, and wait for the invocations under way."""
        pollers, self._pollers = self._pollers, []
        for poller in pollers:
            poller.begin_to_stop()
        for poller in pollers:
            poller.stop()

    def start_schedules(self) -> None:
        """Begin to fire the schedules. One with a rate fires at once."""
        if not self._tickers:
            self._tickers = [self._ticker(schedule) for schedule in self.deployment.schedules]

    def stop_schedules(self) -> None:
        """Fire no more, and wait for the invocations under way."""
        tickers, self._tickers = self._tickers, []
        for ticker in tickers:
            ticker.stop()

    def start_alarms(self, minute: float = 60.0) -> None:
        """Begin to record metrics and to evaluate the alarms, of which each follows its metric from then on.

        Metrics are those of queues and functions, and those that functions log in the embedded metric format; they are
        also in CloudWatch. A topic that an alarm names is told of its changes, whoever makes them.

        Args:
            minute: how many seconds a minute of an alarm's period lasts. The values of metrics, such as ages, stay in
                true seconds.

        Raises:
            SandboxError: there is an alarm that could not be evaluated as CloudWatch would.
        """
        if not self._watch:
            self._watch = alarms.Watch(self.cloud, self._functions.keys(), self._failed, minute)
            # First of all, so that no listener that fails keeps anything from it.
            self._listeners = [self._watch.hear, *self._listeners]
            self._log_listeners = [self._watch.hear_line, *self._log_listeners]

    def stop_alarms(self) -> None:
        """Evaluate no more; the alarms keep their states."""
        watch, self._watch = self._watch, None
        if watch:
            # Not removed in place: another thread may just be calling one after the other.
            self._listeners = [each for each in self._listeners if each != watch.hear]
            self._log_listeners = [each for each in self._log_listeners if each != watch.hear_line]
            watch.stop()

    @property
    def alarms(self) -> Mapping[str, str]:
        """The states of the alarms, by their names: OK, ALARM or INSUFFICIENT_DATA, in which each begins."""
        return alarms.states(self.cloud)

    def wait_for_alarm(self, name_contains: str, state: str, timeout: float) -> str:
        """Wait until the one alarm with that in its name has a state, and give its full name.

        Raises:
            TimeoutError: it has not in time; the message says what the states are.
            SandboxError: there is no such alarm, or more than one; or the sandbox itself has failed meanwhile.
        """
        return alarms.wait_for(self.cloud, name_contains, state, timeout, self._check)

    @property
    def emails(self) -> tuple[Email, ...]:
        """Every email that was sent, oldest first."""
        return self._mailbox.emails

    def wait_for_email(self, matches: Callable[[Email], bool], timeout: float) -> Email:
        """The oldest email that matches; those sent before count too.

        Raises:
            TimeoutError: none has come in time; the message says what did.
            SandboxError: the sandbox itself has failed meanwhile.
        """
        return self._mailbox.wait_for(matches, timeout, self._check)

    def wait_until_idle(self, timeout: float, *, hidden: bool = True) -> None:
        """Wait until the mapped queues are empty and no function is at work.

        Args:
            timeout: seconds.
            hidden: whether a message that is hidden after a failure counts as work still to be done.

        Raises:
            TimeoutError: that is not so in time; the message says what is left.
            SandboxError: the sandbox itself has failed meanwhile, or a listener has.
        """
        end = time.monotonic() + timeout
        while work := self._work(hidden=hidden):
            with self._changed:
                self._check()
                left = end - time.monotonic()
                if left <= 0:
                    raise TimeoutError(f"the sandbox is not idle after {timeout:g} seconds: {work}")
                self._changed.wait(min(left, _RECHECK_SECONDS))

    def _work(self, *, hidden: bool) -> str:
        """What is still to be done, in words; empty if nothing is.

        What is looked at changes meanwhile: a function may send to a queue that was empty, and end. So nothing must
        have ended from the first look to the last.
        """
        changes = self._changes
        if running := self._running():
            return ", ".join(running)
        left_behind = {poller.configuration.uuid: poller.left_behind for poller in self._pollers}
        waiting: list[str] = []
        for mapping in self.deployment.mappings:
            excepted = 0 if hidden else left_behind.get(mapping.uuid, 0)
            # moto counts visible and hidden messages one after another, and one that turns from hidden to visible in
            # between is neither; so a zero is asked for again.
            if count := self._messages(mapping.queue_arn, excepted) or self._messages(mapping.queue_arn, excepted):
                waiting.append(f"{count} messages in {mapping.queue_arn.rpartition(':')[2]}")
        if not waiting and changes != self._changes:
            return "something has just ended"
        return ", ".join(waiting or self._running())

    def _running(self) -> list[str]:
        functions = [f"{name} runs {busy} times" for name, each in self._functions.items() if (busy := each.busy)]
        return functions + [f"messages of {each.queue_url} are under way" for each in self._pollers if each.in_flight]

    def _messages(self, queue_arn: str, excepted: int) -> int:
        """How many messages a queue has, but for some of the hidden ones."""
        visible, hidden = "ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"
        url = self.cloud.queue_url(queue_arn)
        counts = self.client("sqs").get_queue_attributes(QueueUrl=url, AttributeNames=[visible, hidden])["Attributes"]
        return int(counts[visible]) + max(0, int(counts[hidden]) - excepted)

    def _deploy(self) -> None:
        # SAM translates while the server starts; it does not need the secret's ARN.
        template = deployment.translate(self._template, self._parameters, self._region)
        if self._secret is not None:
            secret = self.client("secretsmanager").create_secret(
                Name=f"{self._stack}-database", SecretString=json.dumps(self._secret)
            )
            self._database = {"DatabaseSecretArn": secret["ARN"]}
        self._take(deployment.deploy(self.cloud, template, self._stack, self._parameters | self._database))
        if self._lake:
            self.cloud.mirror(self.outputs["LakeBucket"], self._lake)
        self._door = Door(self.invoke)
        self.cloud.open_door(self._door.server_port)

    def _take(self, made: deployment.Deployment) -> None:
        """Have the functions of a deployment, in place of those of one before."""
        for function in self._functions.values():
            function.close()
        self.deployment = deployment.with_environment(made, self._variables)
        self._functions = {
            configuration.name: Function(configuration, self._finished, self._logged)
            for configuration in self.deployment.functions
        }

    def _ticker(self, schedule: deployment.ScheduleConfiguration) -> Ticker:
        """A schedule at work, with its own role; what its function gives up goes on with the function's."""
        function = self._function(schedule.target_arn)
        return Ticker(
            schedule,
            function,
            self._failed,
            sender(self.cloud, schedule.role),
            give_up=sender(self.cloud, function.configuration.role),
            admit=partial(may_invoke, self.cloud, schedule.role, schedule.target_arn),
        )

    def _function(self, name: str) -> Function:
        try:
            return self._functions[name.rpartition(":function:")[2]]
        except KeyError:
            known = ", ".join(self._functions)
            raise SandboxError(f"invoke function {name}: there is none of that name; there are {known}") from None

    def _finished(self, invocation: Invocation) -> None:
        self._note_change()
        for listener in self._listeners:
            listener(invocation)

    def _logged(self, function: str, line: str) -> None:
        for listener in self._log_listeners:
            listener(function, line)

    def _check(self) -> None:
        if self._failures:
            raise SandboxError(f"work in the background: {self._failures[0]!r}") from self._failures[0]

    def _failed(self, error: Exception) -> None:
        self._failures.append(error)
        self._note_change()

    def _note_change(self) -> None:
        with self._changed:
            self._changes += 1
            self._changed.notify_all()
