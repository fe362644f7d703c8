"""A function that does what its event says, well or badly."""

import os
import sys
import time
from typing import Any

import toylib  # type: ignore[import-not-found]  # it is in the layer

if os.environ.get("FAIL_INIT"):
    raise RuntimeError("no such thing")

print("begun")  # noqa: T201  # a line of the start


def handler(event: dict[str, Any], context: Any) -> Any:
    """Do it."""
    sys.stdout.write(event.get("say", ""))
    list(map(os.close, event.get("close", [])))
    match event:
        case {"do": "tell"}:
            return {
                "greeting": toylib.GREETING,
                "environment": dict(os.environ),
                "left": context.get_remaining_time_in_millis(),
                "arn": context.invoked_function_arn,
                "pid": os.getpid(),
                "directory": str(os.getcwd()),  # noqa: PTH109  # what the function sees
            }
        case {"do": "sleep", "seconds": seconds}:
            print("going to sleep")  # noqa: T201  # a line of the invocation
            time.sleep(seconds)
        case {"do": "raise"}:
            raise ValueError("a bad thing")
        case {"do": "exit", "status": status}:
            os._exit(status)
        case {"do": "hoard", "megabytes": megabytes}:
            hoard = bytearray(os.urandom(1 << 20) * megabytes)
            time.sleep(0.3)
            return len(hoard)
        case {"do": "answer", "bytes": size}:
            return "x" * (size - 2)
        case {"do": "write", "lines": lines}:
            for number in range(lines):
                sys.stdout.write(f"line {number} {'.' * 100}\n")
            sys.stderr.write("without an end")
        case {"do": "note"}:
            return event
    return None
