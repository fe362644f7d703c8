"""AWS failing when a test says so: functions see what the service would say, everybody else sees nothing of it."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from tidelog_sandbox import SandboxError
from tidelog_sandbox.cloud import Cloud


@pytest.fixture
def calm(cloud: Cloud) -> Iterator[Cloud]:
    """A cloud that is calm again at the end."""
    yield cloud
    cloud.calm()


def function_client(cloud: Cloud, service: Any) -> Any:
    """Return a client as a function has it, without retries."""
    return boto3.client(
        service,
        endpoint_url=cloud.endpoint_url,
        region_name=cloud.region,
        aws_access_key_id="sandbox",
        aws_secret_access_key="sandbox",
        config=Config(user_agent_extra="exec-env/AWS_Lambda_python3.13", retries={"max_attempts": 0}),
    )


def outcome(call: Any, **arguments: Any) -> str:
    """Call an operation, and say what came of it."""
    try:
        call(**arguments)
    except ClientError as error:
        return f"{error.response['ResponseMetadata']['HTTPStatusCode']} {error.response['Error']['Code']}"
    except BotoCoreError as error:
        return type(error).__name__
    return "done"


def test_a_service_fails_in_its_own_words_and_for_functions_only(calm: Cloud, bucket: str) -> None:
    """S3 in XML, the others in JSON; an answer to HEAD has no body."""
    calm.disturb("s3 (PUT|HEAD) /", "503 SlowDown")
    calm.disturb("ssm PutParameter", "400 ThrottlingException")
    s3, ssm = function_client(calm, "s3"), function_client(calm, "ssm")
    assert outcome(s3.put_object, Bucket=bucket, Key="a", Body=b"x" * 100_000) == "503 SlowDown"
    assert outcome(s3.head_object, Bucket=bucket, Key="a") == "503 503"
    assert outcome(s3.get_object, Bucket=bucket, Key="a") == "404 NoSuchKey"
    assert outcome(ssm.put_parameter, Name="/a", Value="x", Type="String") == "400 ThrottlingException"
    assert outcome(calm.client("s3").put_object, Bucket=bucket, Key="a") == "done"
    calm.calm()
    assert outcome(s3.head_object, Bucket=bucket, Key="a") == "done"


@pytest.mark.parametrize("what", ["reset", "500 InternalError"])
def test_a_call_that_fails_may_have_been_carried_out(calm: Cloud, bucket: str, what: str) -> None:
    """What is lost is the request, or only the reply."""
    s3 = function_client(calm, "s3")
    calm.disturb("/lost-request$", what)
    calm.disturb("/lost-reply$", what, carried_out=True)
    failed = {"reset": "ConnectionClosedError"}.get(what, what)
    assert outcome(s3.put_object, Bucket=bucket, Key="lost-request", Body=b"x") == failed
    assert outcome(s3.put_object, Bucket=bucket, Key="lost-reply", Body=b"x") == failed
    assert [found["Key"] for found in calm.client("s3").list_objects_v2(Bucket=bucket)["Contents"]] == ["lost-reply"]


def test_a_share_of_the_calls_fails_the_same_ones_each_time(calm: Cloud, bucket: str) -> None:
    """As a seed says, and no more often than was asked for."""
    s3 = function_client(calm, "s3")

    def failures(**disturbance: Any) -> list[str]:
        calm.disturb("s3 GET", "500 InternalError", **disturbance)
        outcomes = [outcome(s3.list_objects_v2, Bucket=bucket) for _ in range(30)]
        assert calm.calm() == [outcomes.count("500 InternalError")]
        return outcomes

    assert failures(share=0.5, seed=1) == failures(share=0.5, seed=1) != failures(share=0.5, seed=2)
    assert Counter(failures(times=2)) == {"500 InternalError": 2, "done": 28}


def test_an_expression_that_is_none_is_refused(calm: Cloud) -> None:
    """When it is given, not when a call comes."""
    with pytest.raises(SandboxError, match="unterminated"):
        calm.disturb("s3 (PUT", "reset")
