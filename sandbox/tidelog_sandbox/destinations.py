"""The queues where an invocation ends that came to nothing: a function's on-failure destination, a schedule's own."""

import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Literal

from tidelog_sandbox.cloud import Cloud
from tidelog_sandbox.functions import Invocation

Condition = Literal["RetriesExhausted", "EventAgeExceeded"]
Send = Callable[[str, str, Mapping[str, str]], object]
"""Sends a message to a queue: its ARN, the body, the attributes."""


def sender(cloud: Cloud, role: str = "") -> Send:
    """What sends to the queues of a cloud, with all rights or with those of a role, by its ARN."""

    def send(queue_arn: str, body: str, attributes: Mapping[str, str]) -> None:
        cloud.client("sqs", role).send_message(
            QueueUrl=cloud.queue_url(queue_arn),
            MessageBody=body,
            MessageAttributes={name: {"DataType": "String", "StringValue": each} for name, each in attributes.items()},
        )

    return send


def record(function_arn: str, invocation: Invocation, attempts: int, condition: Condition) -> str:
    """What Lambda sends of an asynchronous invocation that it has given up.

    https://docs.aws.amazon.com/lambda/latest/dg/invocation-async-retain-records.html

    Args:
        function_arn: of the function.
        invocation: the last attempt.
        attempts: how many there were.
        condition: why there is no other.
    """
    now = datetime.now(UTC)
    return json.dumps(
        {
            "version": "1.0",
            "timestamp": f"{now:%Y-%m-%dT%H:%M:%S}.{now.microsecond // 1000:03d}Z",
            "requestContext": {
                "requestId": invocation.request_id,
                "functionArn": f"{function_arn}:$LATEST",
                "condition": condition,
                "approximateInvokeCount": attempts,
            },
            "requestPayload": invocation.payload,
            "responseContext": {"statusCode": 200, "executedVersion": "$LATEST", "functionError": "Unhandled"},
            "responsePayload": invocation.error,
        }
    )
