"""The process that is the cloud: moto's server with its deeds mended, on a free port of 127.0.0.1.

It reads commands from standard input, one JSON object a line, and answers each with one line; the first line that it
writes, unasked, is its port. It ends when its input does, so that it never outlives the process that started it.
"""

import gc

gc.disable()  # What is loaded stays: to look through it for garbage would take a quarter of the start.

import argparse
import json
import logging
import os
import sys
import threading
import traceback
import warnings
from pathlib import Path
from typing import Any, TextIO

from moto.core.common_models import BaseModel
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from moto.s3.models import s3_backends
from werkzeug.serving import BaseWSGIServer, make_server

from tidelog_sandbox import lake, monitoring, parameter_store, permissions, queues, resources, topics, updates
from tidelog_sandbox.errors import SandboxError
from tidelog_sandbox.faults import Disturbance, Faults
from tidelog_sandbox.invocations import Asking
from tidelog_sandbox.mending import mend
from tidelog_sandbox.objects import AtomicWrites


def main() -> None:
    """Serve until standard input ends."""
    parser = argparse.ArgumentParser(prog="python -m tidelog_sandbox.server", description=__doc__)
    parser.add_argument("--conflicts", action="store_true", help="answer 409 to conditional writes that met another")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")  # moto's, about keys that were not closed
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    answers, sys.stdout = sys.stdout, sys.stderr  # nothing but answers on standard output
    server, faults = _server(conflicts=arguments.conflicts)
    kept, asking = _mend(f"http://127.0.0.1:{server.port}"), Asking()
    asking.install()
    gc.freeze()
    gc.enable()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    _answer(answers, {"port": server.port, "resource_types": [model.__name__ for model in kept]})
    for line in sys.stdin:
        _answer(answers, _obeyed(json.loads(line), faults, asking))
    os._exit(0)  # at once: requests under way have nobody to answer to


def _server(*, conflicts: bool) -> tuple[BaseWSGIServer, Faults]:
    application = DomainDispatcherApplication(create_backend_app)
    faults = Faults(AtomicWrites(application, conflicts=conflicts))
    return make_server("127.0.0.1", 0, faults, threaded=True, request_handler=MotoRequestHandler), faults


def _mend(endpoint: str) -> list[Any]:
    queues.install(endpoint)
    lake.install()
    permissions.install()
    topics.install()
    monitoring.install()
    parameter_store.install()
    updates.install()
    _forget_instances()
    return list(resources.install(endpoint))


def _forget_instances() -> None:
    """Let go of objects: moto remembers every one that it ever made, and a long run would grow with each message."""
    mend(BaseModel, "__new__", staticmethod(lambda cls, *_, **__: object.__new__(cls)))


def _obeyed(command: dict[str, Any], faults: Faults, asking: Asking) -> dict[str, Any]:
    """Carry out a command and say what came of it."""
    try:
        match command:
            case {"mirror": directory, "bucket": name, "account": account}:
                lake.mirror(s3_backends[account]["aws"].get_bucket(name), Path(directory))
            case {"disturb": disturbance}:
                faults.disturb(Disturbance(**disturbance))
            case {"door": port}:
                asking.port = port
            case {"calls": True}:
                return {"calls": permissions.CALLS.taken()}
            case {"calm": True}:
                return {"struck": faults.calm()}
            case {"emails": first}:
                return {"emails": topics.sent(first)}
            case {"metrics": region, "account": account}:
                return {"metrics": queues.metrics(account, region)}
            case _:
                return {"error": f"no such command: {command}"}
    except SandboxError as error:
        return {"error": str(error)}
    except Exception:  # noqa: BLE001  # whatever it was, the parent has to hear of it
        return {"error": traceback.format_exc()}
    return {}


def _answer(stream: TextIO, answer: dict[str, Any]) -> None:
    stream.write(json.dumps(answer) + "\n")
    stream.flush()


if __name__ == "__main__":
    main()
