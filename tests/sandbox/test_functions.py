"""A function runs as in Lambda: in processes of its own, with its limits, and its failures are told apart."""

import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.tide import wait_for
from tidelog_sandbox import Invocation, Sandbox, SandboxError
from tidelog_sandbox.cloud import Cloud
from tidelog_sandbox.functions import Function
from tidelog_sandbox.runtime import FunctionConfiguration
from tidelog_sandbox.runtime_api import RuntimeApi

MIB = 1 << 20


@pytest.fixture
def configuration(sandbox: Sandbox) -> FunctionConfiguration:
    """Of the toy stack's plain function, which does what it is told."""
    return sandbox.functions[sandbox.outputs["Plain"]].configuration


@pytest.fixture
def function(configuration: FunctionConfiguration) -> Iterator[Function]:
    """The plain function, with environments of this test alone."""
    function = Function(configuration, lambda _: None, lambda _name, _line: None)
    yield function
    function.close()


def pid(function: Function) -> int:
    """The process that the next invocation runs in."""
    found: int = function.invoke({"do": "tell"}).response["pid"]
    return found


def test_a_function_answers(function: Function) -> None:
    """From its code and its layer, in its directory, knowing its name, its ARN and its time."""
    told = function.invoke({"do": "tell"})
    assert (told.kind, told.succeeded, told.error) == ("success", True, None)
    assert told.response["greeting"] == "from the layer"
    assert told.response["arn"] == function.configuration.arn
    assert told.response["directory"] == str(function.configuration.code)
    assert 1500 < told.response["left"] <= 2000
    assert told.billed >= told.duration * 1000 > 0
    assert told.payload == {"do": "tell"}


def test_its_environment_is_lambdas_and_the_templates_and_not_ours(
    function: Function, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing of this process's variables gets through but PATH."""
    monkeypatch.setenv("OUR_OWN", "x")
    monkeypatch.setenv("AWS_PROFILE", "production")
    seen: dict[str, str] = function.invoke({"do": "tell"}).response["environment"]
    assert seen["PATH"] == os.environ["PATH"]
    assert seen["AWS_LAMBDA_FUNCTION_NAME"] == function.configuration.name
    assert seen["AWS_LAMBDA_FUNCTION_MEMORY_SIZE"] == "256"
    assert seen["AWS_ENDPOINT_URL"].startswith("http://127.0.0.1:")
    assert seen["RETRIES"] == "2"
    assert not {"OUR_OWN", "AWS_PROFILE", "HOME"} & seen.keys()


def test_an_environment_is_used_again(function: Function) -> None:
    """The first invocation is cold, the next one warm, in the same process, also after an error of the function."""
    first, failed, third = (function.invoke({"do": what}) for what in ("tell", "raise", "tell"))
    assert (first.cold, failed.cold, third.cold) == (True, False, False)
    assert first.response["pid"] == third.response["pid"]


def test_invocations_at_a_time_have_an_environment_each(function: Function) -> None:
    """And those are kept for the next ones, until they are reaped."""
    threads = [threading.Thread(target=function.invoke, args=({"do": "sleep", "seconds": 0.5},)) for _ in range(3)]
    for thread in threads:
        thread.start()
    time.sleep(0.2)
    assert function.busy == 3
    for thread in threads:
        thread.join()
    assert (function.busy, function.environments) == (0, 3)
    function.reap(idle_seconds=60)
    assert function.environments == 3
    function.reap()
    assert function.environments == 0


def test_an_invocation_under_way_can_be_killed(function: Function) -> None:
    """The one that is wanted; the others go on."""
    with ThreadPoolExecutor(2) as pool:
        long, short = (pool.submit(function.invoke, {"do": "sleep", "seconds": seconds}) for seconds in (1.5, 0.5))
        wait_for(lambda: function.kill(lambda payload: payload["seconds"] == 1.5))
        assert (long.result().kind, short.result().kind) == ("exit", "success")
    assert not function.kill(lambda _: True)


def test_what_a_function_raises_is_its_error(function: Function) -> None:
    """With type, message and trace."""
    failed = function.invoke({"do": "raise"})
    assert failed.kind == "error"
    assert failed.error
    assert (failed.error["errorType"], failed.error["errorMessage"]) == ("ValueError", "a bad thing")
    assert "raise ValueError" in failed.error["stackTrace"][0]


def test_a_function_that_takes_too_long_is_killed(function: Function) -> None:
    """When its timeout has passed, and the next invocation starts anew."""
    before = pid(function)
    failed = function.invoke({"do": "sleep", "seconds": 30})
    assert failed.kind == "timeout"
    assert failed.error
    assert failed.error["errorMessage"].endswith("Task timed out after 2.00 seconds")
    assert 2 <= failed.duration < 2.5
    assert failed.log == ("going to sleep",)
    assert pid(function) != before


@pytest.mark.parametrize(("status", "how"), [(3, "exit status 3"), (0, "exit status 0")])
def test_a_function_that_exits_has_failed(function: Function, status: int, how: str) -> None:
    """Even with status 0."""
    failed = function.invoke({"do": "exit", "status": status})
    assert failed.kind == "exit"
    assert failed.error
    assert failed.error["errorType"] == "Runtime.ExitError"
    assert failed.error["errorMessage"].endswith(how)


def test_a_function_that_is_killed_has_failed(function: Function) -> None:
    """By whomever."""
    victim = pid(function)
    killer = threading.Timer(0.3, os.kill, (victim, 9))
    killer.start()
    failed = function.invoke({"do": "sleep", "seconds": 1})
    killer.join()
    assert failed.kind == "exit"
    assert failed.error
    assert failed.error["errorMessage"].endswith("signal: Killed")


def test_an_environment_that_died_while_idle_is_replaced(function: Function) -> None:
    """The invocation does not notice."""
    first = pid(function)
    os.kill(first, 9)
    time.sleep(0.1)
    assert pid(function) != first
    assert function.environments == 1


def test_a_function_that_takes_more_memory_than_it_has_is_killed(function: Function) -> None:
    """And what it took is told."""
    failed = function.invoke({"do": "hoard", "megabytes": 400})
    assert failed.kind == "memory"
    assert failed.error
    assert failed.error["errorType"] == "Runtime.OutOfMemory"
    assert failed.peak_memory > 256 * MIB


def test_the_peak_of_memory_is_told(function: Function) -> None:
    """Of the environment, so that it stays when the memory was given back."""
    small = function.invoke({"do": "tell"}).peak_memory
    assert 5 * MIB < small < 60 * MIB
    assert function.invoke({"do": "hoard", "megabytes": 80}).peak_memory > 80 * MIB
    assert function.invoke({"do": "tell"}).peak_memory > 80 * MIB


@pytest.mark.parametrize(("size", "kind"), [(6 * MIB + 100, "success"), (6 * MIB + 101, "error")])
def test_a_response_may_have_six_mebibytes(function: Function, size: int, kind: str) -> None:
    """And a hundred bytes; one more is the function's error."""
    answered = function.invoke({"do": "answer", "bytes": size})
    assert answered.kind == kind
    if kind == "error":
        assert answered.error
        assert answered.error["errorType"] == "Function.ResponseSizeTooLarge"
    assert function.invoke({"do": "tell"}).succeeded


def test_the_log_is_every_line_of_the_invocation_and_no_other(configuration: FunctionConfiguration) -> None:
    """More than a pipe holds; the start's lines are the first invocation's. They can be read as they are written."""
    live: list[tuple[str, str]] = []
    function = Function(configuration, lambda _: None, lambda name, line: live.append((name, line)))
    try:
        first = function.invoke({"do": "write", "lines": 5000})
        second = function.invoke({"do": "tell"})
    finally:
        function.close()
    assert len(first.log) == 5002
    assert (first.log[0], first.log[1][:7], first.log[-1]) == ("begun", "line 0 ", "without an end")
    assert second.log == ()
    assert live == [(configuration.name, line) for line in first.log]


def test_a_function_may_close_its_output(function: Function) -> None:
    """It answers all the same; so does one that is killed just after its answer."""
    assert function.invoke({"do": "hoard", "megabytes": 1, "close": [1, 2]}).succeeded


@pytest.mark.parametrize("rest", [b"Content-Length: 10\r\n\r\n{", b"Transfer-Encoding: chunked\r\n\r\n5\r\n{"])
def test_an_answer_that_is_cut_off_is_none(rest: bytes) -> None:
    """As when a function is killed while it answers."""
    api = RuntimeApi("arn")
    for half in (rest, b"Content-Length: 2\r\n\r\n{}"):
        with socket.create_connection(("127.0.0.1", api.server_port)) as connection:
            connection.sendall(b"POST /2018-06-01/runtime/invocation/x/response HTTP/1.1\r\n" + half)
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(1024):
                pass
    assert api.results.get_nowait() == ("response", b"{}")
    api.close()


def test_a_function_that_fails_to_start_says_why(configuration: FunctionConfiguration) -> None:
    """The error is its own, and the next invocation tries again."""
    broken = replace(configuration, environment={**configuration.environment, "FAIL_INIT": "1"})
    function = Function(broken, lambda _: None, lambda _name, _line: None)
    try:
        failures = [function.invoke({"do": "tell"}) for _ in range(2)]
    finally:
        function.close()
    for failed in failures:
        assert (failed.kind, failed.cold) == ("init", True)
        assert failed.error
        assert failed.error["errorMessage"] == "no such thing"


def test_a_function_sees_nothing_that_lambda_would_not_have(
    configuration: FunctionConfiguration, tmp_path: Path
) -> None:
    """boto3 is there; what only this checkout has is not, so that whoever forgets a requirement learns it here."""
    (tmp_path / "app.py").write_text("import boto3, typer\nhandler = print\n")
    function = Function(replace(configuration, code=tmp_path), lambda _: None, lambda _name, _line: None)
    failed = function.invoke({})
    function.close()
    assert failed.error
    assert "No module named 'typer'" in failed.error["errorMessage"]


def test_a_handler_that_does_not_exist_is_an_error_of_the_start(configuration: FunctionConfiguration) -> None:
    """With Lambda's word for it."""
    function = Function(replace(configuration, handler="nothing.here"), lambda _: None, lambda _name, _line: None)
    try:
        failed = function.invoke({})
    finally:
        function.close()
    assert failed.error
    assert failed.error["errorType"] == "Runtime.ImportModuleError"


def test_a_directory_that_does_not_exist_is_said_to_be_missing(configuration: FunctionConfiguration) -> None:
    """It is the sandbox that fails here, not the function."""
    function = Function(replace(configuration, code=Path("/nowhere")), lambda _: None, lambda _name, _line: None)
    with pytest.raises(SandboxError, match=r"start function .* in /nowhere"):
        function.invoke({})
    assert function.busy == 0


def test_a_closed_function_takes_its_invocations_with_it(configuration: FunctionConfiguration) -> None:
    """They fail, and no new ones are taken."""
    ended: list[Invocation] = []
    function = Function(configuration, ended.append, lambda _name, _line: None)
    thread = threading.Thread(target=function.invoke, args=({"do": "sleep", "seconds": 1.5},))
    thread.start()
    while not function.busy:
        time.sleep(0.01)
    time.sleep(0.3)
    function.close()
    thread.join(1)
    assert not thread.is_alive()
    assert [invocation.kind for invocation in ended] in (["exit"], ["init"])
    with pytest.raises(SandboxError, match="closed"):
        function.invoke({})
    assert function.environments == 0


def test_every_invocation_is_announced(sandbox: Sandbox) -> None:
    """By name or by ARN."""
    seen: list[Invocation] = []
    sandbox.on_invocation(seen.append)
    made = [sandbox.invoke(sandbox.outputs[name], {"do": "note"}) for name in ("Plain", "PlainArn")]
    assert seen == made
    assert seen[0].record is None


def test_a_function_that_does_not_exist_is_named(sandbox: Sandbox) -> None:
    """With those that do."""
    with pytest.raises(SandboxError, match=r"invoke function nothing: .* there are tidelog-Plain"):
        sandbox.invoke("nothing", {})


def test_a_cloud_without_a_sandbox_runs_no_function(cloud: Cloud) -> None:
    """Nor does it say that one has run."""
    client: Any = cloud.client("lambda")
    with pytest.raises(client.exceptions.ResourceNotFoundException):
        client.invoke(FunctionName="nobody", Payload="{}")


def test_a_client_invokes_a_function_as_on_aws(sandbox: Sandbox) -> None:
    """By name or ARN; what it raises is in the payload, and a function that is not there is refused."""
    client, name = sandbox.client("lambda"), sandbox.outputs["Plain"]
    arn = client.get_function(FunctionName=name)["Configuration"]["FunctionArn"]
    for function in (name, arn):
        answer = client.invoke(FunctionName=function, Payload=json.dumps({"do": "tell"}))
        assert "FunctionError" not in answer
        assert json.load(answer["Payload"])["pid"]
    failed = client.invoke(FunctionName=name, Payload=json.dumps({"do": "raise"}))
    assert failed["FunctionError"] == "Unhandled"
    assert json.load(failed["Payload"])["errorType"]
    with pytest.raises(client.exceptions.ResourceNotFoundException):
        client.invoke(FunctionName="nobody", Payload="{}")
