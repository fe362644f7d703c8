"""The template's roles: every statement is needed by a call that is really made, and no other call is let through.

The sandbox holds the functions, the event source mappings and the schedules to their roles in every test, so in the
demo too. Here it notes their calls through a day of work.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from botocore.exceptions import ClientError
from moto.iam.access_control import IAMPolicy, PermissionResult

from tests.chaos.plan import ROOT
from tests.conftest import CreateDatabase
from tests.stack.office import PARAMETERS
from tests.stack.ward import ROLES, Call, Ward
from tidelog.memory import KEY
from tidelog_sandbox.functions import Invocation
from tidelog_sandbox.sandbox import Sandbox

SETTINGS = {**PARAMETERS, "RetrySeconds": "1", "LockSeconds": "1"}
SMALL = {"TIDELOG_CHUNK_MEGABYTES": "0.5", "TIDELOG_HORIZON_SECONDS": "0.01"}
LARGE = "CREATE TABLE large AS SELECT n AS id, repeat('x', 50) AS text FROM generate_series(1, 20000) n"


@pytest.fixture(scope="module")
def ward(create_database: CreateDatabase, server_role: str) -> Iterator[Ward]:
    """A stack after a day of work, over a small table, a large one, and one that may not be read."""
    with create_database() as database:
        database.run(
            "CREATE TABLE orders (id int PRIMARY KEY, v int)",
            "INSERT INTO orders VALUES (1)",
            LARGE,
            "CREATE TABLE closed (id int)",
            f"GRANT SELECT, UPDATE ON orders, large TO {server_role}",
        )
        to = database.server.credentials(database.name, server_role)
        content = {name: getattr(to, name) for name in to.__struct_fields__} | {"engine": "postgres"}
        with Sandbox(ROOT / "template.yaml", parameters=SETTINGS, database=content, environment=SMALL) as sandbox:
            sandbox.start_mappings()
            ward = Ward(sandbox, database)
            ward.work_for_a_day()
            yield ward
        database.run(f"DROP OWNED BY {server_role}")


DENIED = ("AccessDenied", "AccessDeniedException", "AuthorizationError", "UnauthorizedOperation", "403")


def allows(statements: list[dict[str, Any]], call: Call) -> bool:
    """Ask moto, which does so at each call, whether some statements allow it."""
    policy = IAMPolicy(json.dumps({"Statement": statements}))
    return policy.is_action_permitted(call.action, call.resource) is PermissionResult.PERMITTED


def refused(ward: Ward, role: str, service: str, operation: str, arguments: Mapping[str, Any]) -> bool:
    """Make a call with a role's credentials; say whether it was refused for want of a right, and nothing else."""
    try:
        answer = getattr(ward.client(role, service), operation)(**arguments)
    except ClientError as error:
        return error.response["Error"]["Code"] in DENIED
    return any(error["Code"] in DENIED for error in answer.get("Errors", []))  # of several objects, each has its own


def test_a_day_of_work_asks_for_nothing_that_a_role_has_not(ward: Ward) -> None:
    """But for one: the scheduler may not learn whether the object it remembers ticks by is there. It can do without."""
    expected = [Call(ward.names["SchedulerRole"], "s3:ListBucket", f"arn:aws:s3:::{ward.bucket}", overwrites=False)]
    for role in ROLES:
        assert ward.asked(role)
        denied = [call for call in ward.asked(role) if not allows(ward.statements(role), call)]
        assert denied == (expected if role == "SchedulerRole" else [])
    assert ward.tide.values("id", "public.orders")[-1] == 4


@pytest.mark.parametrize("role", ROLES)
def test_each_action_on_each_resource_of_a_role_is_asked_for(role: str, ward: Ward) -> None:
    """So none is there by habit; and by no two statements, so that without any one of them something is denied."""
    calls = ward.asked(role)
    for statement in ward.statements(role):
        for action in statement["Action"]:
            for resource in statement["Resource"]:
                needing = [
                    call for call in calls if allows([{**statement, "Action": action, "Resource": resource}], call)
                ]
                assert needing, (statement["Sid"], action, resource)
        others = [each for each in ward.statements(role) if each["Sid"] != statement["Sid"]]
        assert [call for call in calls if not allows(others, call)], statement["Sid"]


def test_what_is_written_once_is_created_on_that_condition(ward: Ward) -> None:
    """Which the bucket's policy demands of everybody; failures and what ticks remember are written over."""
    overwriting = {call.resource.partition("/")[2].partition("/")[0] for call in ward.calls if call.overwrites}
    assert overwriting == {"failures", "ticks"}


NEEDED = [
    ("SchedulerRole", "SendWork"),
    ("SchedulerRole", "RememberTicks"),
    ("WorkerRole", "FindMissing"),
    ("WorkerRole", "WriteLake"),
    ("WorkerRole", "KeepState"),
]


@pytest.mark.parametrize(("role", "sid"), NEEDED, ids=[" ".join(each) for each in NEEDED])
def test_without_a_statement_work_fails_as_denied_and_is_done_once_it_is_back(role: str, sid: str, ward: Ward) -> None:
    """The same in the stack itself, for some: the failure says what is wrong, and no row is lost."""
    ids = ward.tide.values("id", "public.orders")
    ward.tide.run(f"INSERT INTO orders VALUES ({ids[-1] + 1})")
    invocations: list[Invocation] = []
    ward.sandbox.on_invocation(invocations.append)
    with ward.without(role, sid):
        ward.sandbox.invoke(ward.sandbox.outputs["SchedulerFunction"], {})
        ward.settle()
        log = [line for each in invocations for line in each.log if "AWS refused" in line]
        assert log, invocations
        assert {each.function for each in invocations if set(log) & set(each.log)} == {ward.function(role)}
        if sid != "RememberTicks":  # that fails when the messages are sent
            assert ward.tide.values("id", "public.orders") == ids
    ward.tick()
    assert set(ward.tide.values("id", "public.orders")) == {*ids, ids[-1] + 1}


Attempt = tuple[str, str, dict[str, Any]]
"""A service, an operation and its arguments."""


def strangers(ward: Ward) -> dict[str, str]:
    """Make what is none of the stack's, in the same account; return how each is named in a call."""
    client = ward.sandbox.client
    where = {"LocationConstraint": ward.sandbox.cloud.region}
    client("s3").create_bucket(Bucket="elsewhere", CreateBucketConfiguration=where)
    client("s3").put_object(Bucket="elsewhere", Key="data/a", Body=b"theirs")
    client("s3").put_object(Bucket=ward.bucket, Key="other/a", Body=b"theirs")
    client("ssm").put_parameter(Name="/tidelog/another/tables/public/orders", Value="1", Type="String")
    client("ssm").put_parameter(Name="/elsewhere", Value="1", Type="String")
    return {
        "queue": client("sqs").create_queue(QueueName="elsewhere")["QueueUrl"],
        "secret": client("secretsmanager").create_secret(Name="elsewhere", SecretString="theirs")["ARN"],
        "topic": client("sns").create_topic(Name="elsewhere")["TopicArn"],
    }


def on_objects(ward: Ward) -> list[Attempt]:
    """Return calls on S3 that no role may make: elsewhere, below another prefix, over or against what is there."""
    lake = ward.bucket
    kept = [ward.tide.lake.keys(f"{folder}/public.orders/")[0] for folder in ("data", "ledger", "schema")]
    version = ward.sandbox.client("s3").head_object(Bucket=lake, Key=kept[0])["VersionId"]
    new = {"Body": b"", "IfNoneMatch": "*"}
    suspended = {"Status": "Suspended"}
    expiring = {"Rules": [{"Status": "Enabled", "Prefix": "", "Expiration": {"Days": 1}}]}
    return [
        ("s3", "put_object", {"Bucket": "elsewhere", "Key": "data/b", **new}),
        ("s3", "get_object", {"Bucket": "elsewhere", "Key": "data/a"}),
        ("s3", "list_objects_v2", {"Bucket": "elsewhere"}),
        ("s3", "get_object", {"Bucket": lake, "Key": "other/a"}),
        ("s3", "put_object", {"Bucket": lake, "Key": "other/b", **new}),
        *[("s3", "put_object", {"Bucket": lake, "Key": key, "Body": b"{}"}) for key in kept],
        *[("s3", "delete_object", {"Bucket": lake, "Key": key}) for key in kept],
        ("s3", "delete_object", {"Bucket": lake, "Key": kept[0], "VersionId": version}),
        ("s3", "delete_objects", {"Bucket": lake, "Delete": {"Objects": [{"Key": kept[0]}]}}),
        ("s3", "copy_object", {"Bucket": lake, "Key": kept[1], "CopySource": f"{lake}/{kept[0]}"}),
        ("s3", "complete_multipart_upload", uploaded(ward, kept[0])),
        ("s3", "put_bucket_policy", {"Bucket": lake, "Policy": "{}"}),
        ("s3", "delete_bucket_policy", {"Bucket": lake}),
        ("s3", "put_bucket_versioning", {"Bucket": lake, "VersioningConfiguration": suspended}),
        ("s3", "put_bucket_lifecycle_configuration", {"Bucket": lake, "LifecycleConfiguration": expiring}),
        ("s3", "delete_bucket", {"Bucket": lake}),
    ]


def uploaded(ward: Ward, key: str) -> dict[str, Any]:
    """Upload something for the place of an object; return what would put it there."""
    upload = {"Bucket": ward.bucket, "Key": key}
    s3 = ward.sandbox.client("s3")
    upload["UploadId"] = s3.create_multipart_upload(**upload)["UploadId"]
    part = {"PartNumber": 1, "ETag": s3.upload_part(**upload, PartNumber=1, Body=b"{}")["ETag"]}
    return {**upload, "MultipartUpload": {"Parts": [part]}}


def on_the_rest(ward: Ward, there: Mapping[str, str]) -> list[Attempt]:
    """Return calls on other services that no role may make."""
    names, prefix = ward.names, ward.sandbox.outputs["ParameterPrefix"]
    mine = f"{prefix}/tables/public/orders"
    return [
        ("ssm", "get_parameter", {"Name": "/elsewhere"}),
        ("ssm", "get_parameter", {"Name": "/tidelog/another/tables/public/orders"}),
        ("ssm", "get_parameters", {"Names": [mine, "/elsewhere"]}),
        ("ssm", "get_parameters_by_path", {"Path": "/"}),
        ("ssm", "put_parameter", {"Name": f"{prefix}/configuration", "Value": "{}", "Overwrite": True}),
        ("ssm", "put_parameter", {"Name": "/elsewhere", "Value": "2", "Overwrite": True}),
        ("ssm", "delete_parameter", {"Name": mine}),
        ("sqs", "send_message", {"QueueUrl": there["queue"], "MessageBody": "{}"}),
        ("sqs", "receive_message", {"QueueUrl": there["queue"]}),
        ("sqs", "receive_message", {"QueueUrl": names["DeadLetters"]}),
        ("sqs", "purge_queue", {"QueueUrl": names["WorkQueue"]}),
        ("sns", "publish", {"TopicArn": there["topic"], "Message": "a"}),
        ("sns", "subscribe", {"TopicArn": names["Administrators"], "Protocol": "email", "Endpoint": "a@b.c"}),
        ("secretsmanager", "get_secret_value", {"SecretId": there["secret"]}),
        ("secretsmanager", "put_secret_value", {"SecretId": "tidelog-database", "SecretString": "{}"}),
        ("lambda", "invoke", {"FunctionName": names["WorkerFunction"]}),
        ("lambda", "get_function", {"FunctionName": names["WorkerFunction"]}),
        ("logs", "create_log_stream", {"logGroupName": "elsewhere", "logStreamName": "a"}),
        ("logs", "delete_log_group", {"logGroupName": names["WorkerLogs"]}),
        ("iam", "delete_role_policy", {"RoleName": names["WorkerRole"], "PolicyName": "worker"}),
    ]


def of_each_role(ward: Ward) -> dict[str, list[Attempt]]:
    """Return calls that another role of the stack may make."""
    names, lake, prefix = ward.names, ward.bucket, ward.sandbox.outputs["ParameterPrefix"]
    message = {"MessageBody": "{}", "MessageGroupId": "a"}
    return {
        "ScheduleRole": [("sqs", "send_message", {"QueueUrl": names["WorkQueue"], **message})],
        "SchedulerRole": [
            ("sqs", "receive_message", {"QueueUrl": names["WorkQueue"]}),
            ("sqs", "send_message", {"QueueUrl": names["DeadLetters"], **message}),
            ("s3", "get_object", {"Bucket": lake, "Key": ward.tide.lake.keys("data/")[0]}),
            ("s3", "put_object", {"Bucket": lake, "Key": "ledger/a", "Body": b"", "IfNoneMatch": "*"}),
            ("logs", "create_log_stream", {"logGroupName": names["WorkerLogs"], "logStreamName": "b"}),
            ("lambda", "invoke", {"FunctionName": names["SchedulerFunction"]}),
        ],
        "WorkerRole": [
            ("sqs", "send_message", {"QueueUrl": names["WorkQueue"], **message}),
            ("sqs", "send_message", {"QueueUrl": names["MissedTicks"], "MessageBody": "{}"}),
            ("s3", "get_object", {"Bucket": lake, "Key": KEY}),
            ("ssm", "get_parameters_by_path", {"Path": f"{prefix}/tables"}),
            ("ssm", "put_parameter", {"Name": f"{prefix}/tick", "Value": "{}", "Overwrite": True}),
            ("logs", "create_log_stream", {"logGroupName": names["SchedulerLogs"], "logStreamName": "b"}),
            ("lambda", "invoke", {"FunctionName": names["SchedulerFunction"]}),
        ],
    }


def test_every_other_call_is_denied_and_nothing_is_changed(ward: Ward) -> None:
    """Another bucket, prefix, parameter, queue, topic, secret or function; deleting, overwriting, administering."""
    s3 = ward.sandbox.client("s3")
    there = strangers(ward)
    attempts = on_objects(ward) + on_the_rest(ward, there)
    before = s3.list_object_versions(Bucket=ward.bucket)
    for role, own in of_each_role(ward).items():
        assert [each for each in attempts + own if not refused(ward, role, *each)] == []
    after = s3.list_object_versions(Bucket=ward.bucket)
    assert [each["VersionId"] for each in after["Versions"]] == [each["VersionId"] for each in before["Versions"]]
    assert "DeleteMarkers" not in after


def test_the_worker_creates_an_object_once(ward: Ward) -> None:
    """The control to what is denied: with the condition it may, and may not do it again."""
    new: dict[str, Any] = {"Bucket": ward.bucket, "Key": "data/public.orders/new", "Body": b"a", "IfNoneMatch": "*"}
    assert not refused(ward, "WorkerRole", "s3", "put_object", new)
    worker = ward.client("WorkerRole", "s3")
    with pytest.raises(ClientError, match="PreconditionFailed"):
        worker.put_object(**new)
    with pytest.raises(ClientError, match="PreconditionFailed"):
        worker.complete_multipart_upload(**uploaded(ward, new["Key"]), IfNoneMatch="*")
    assert worker.get_object(Bucket=ward.bucket, Key=new["Key"])["Body"].read() == b"a"
