"""Lambda's Invoke, for whoever has a client of the cloud: the server asks the sandbox, which runs the functions."""

import http.client
import http.server
import json
import threading
from collections.abc import Callable
from typing import Any
from urllib.parse import quote, unquote

from botocore.exceptions import ClientError
from moto.awslambda.exceptions import InvalidParameterValueException
from moto.awslambda.models import LambdaBackend, LambdaFunction

from tidelog_sandbox.cloud import Cloud
from tidelog_sandbox.errors import SandboxError
from tidelog_sandbox.functions import Invocation
from tidelog_sandbox.mending import mend

Invoke = Callable[[str, Any], Invocation]
"""Runs a function, by its name, with a payload."""


def may_invoke(cloud: Cloud, role: str, function: str) -> None:
    """Ask Lambda whether a role may invoke a function; both by their ARNs.

    Raises:
        SandboxError: it may not.
    """
    try:
        cloud.client("lambda", role).invoke(FunctionName=function, InvocationType="DryRun")
    except ClientError as error:
        raise SandboxError(f"invoke {function} as {role}: {error.response['Error'].get('Code')}") from error


class Door(http.server.ThreadingHTTPServer):
    """Where the server of the cloud asks for invocations, on a port of its own.

    Args:
        invoke: runs a function.
    """

    daemon_threads = True

    def __init__(self, invoke: Invoke) -> None:
        super().__init__(("127.0.0.1", 0), _Request)
        self.invoke = invoke
        threading.Thread(target=self.serve_forever, daemon=True, name="invocations").start()

    def close(self) -> None:
        """Listen no more; invocations under way end by themselves."""
        self.shutdown()
        self.server_close()


class _Request(http.server.BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        """Run a function and answer with what came of it."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        assert isinstance(self.server, Door)  # noqa: S101  # for the type
        invocation = self.server.invoke(unquote(self.path[1:]), json.loads(body or b"{}"))
        answer = json.dumps(invocation.response if invocation.succeeded else invocation.error).encode()
        self.send_response(200)
        if not invocation.succeeded:
            self.send_header("X-Function-Error", "Unhandled")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the name it has there
        """Say nothing."""


class Asking:
    """The server's side: it answers Invoke once it is told where the door is."""

    def __init__(self) -> None:
        self.port: int | None = None

    def install(self) -> None:
        """Make moto's Lambda ask at the door, where it would run functions in Docker itself."""

        def invoke(  # noqa: PLR0917  # as it is there
            backend: LambdaBackend,
            function_name: str,
            qualifier: str | None,
            body: Any,
            request: Any,
            headers: dict[str, str],
        ) -> bytes | None:
            function = backend.get_function(function_name, qualifier)
            if request.get("X-Amz-Invocation-Type") == "DryRun":
                return b""
            return self._ask(function.function_name, body, headers)

        def refuse(*_: object, **__: object) -> None:
            raise InvalidParameterValueException("The sandbox runs functions itself")

        mend(LambdaBackend, "invoke", invoke)
        mend(LambdaFunction, "_invoke_lambda", refuse)

    def _ask(self, name: str, body: Any, headers: dict[str, str]) -> bytes:
        if self.port is None:
            raise InvalidParameterValueException("There is no sandbox that would run functions")
        connection = http.client.HTTPConnection("127.0.0.1", self.port)
        try:
            connection.request("POST", f"/{quote(name)}", body or b"{}")
            response = connection.getresponse()
            if error := response.headers["X-Function-Error"]:
                headers["x-amz-function-error"] = error
            return response.read()
        finally:
            connection.close()
