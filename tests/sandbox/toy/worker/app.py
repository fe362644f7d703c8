"""A function behind a queue that does what its message says."""

import json
import time
from typing import Any


def handler(event: dict[str, Any], _context: object) -> Any:
    """Work one message off."""
    (record,) = event["Records"]
    match json.loads(record["body"]):
        case {"sleep": seconds}:
            time.sleep(seconds)
        case {"report": "failure"}:
            return {"batchItemFailures": [{"itemIdentifier": record["messageId"]}]}
        case {"report": answer}:
            return answer
        case {"raise": text}:
            raise RuntimeError(text)
        case {"once": _} if record["attributes"]["ApproximateReceiveCount"] == "1":
            raise RuntimeError("the first time")
    return {"batchItemFailures": []}
