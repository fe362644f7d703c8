"""The template is deployed whole, or not at all."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.sandbox.conftest import TOY
from tidelog_sandbox import Sandbox, SandboxError
from tidelog_sandbox.cloud import Cloud
from tidelog_sandbox.deployment import delete, deploy, translate

TRANSFORM = "AWS::Serverless-2016-10-31"


def written(tmp_path: Path, document: dict[str, Any]) -> Path:
    """A template file."""
    path = tmp_path / "template.yaml"
    path.write_text(yaml.safe_dump({"Transform": TRANSFORM, **document}))
    return path


def test_functions_are_read_from_what_was_deployed(sandbox: Sandbox) -> None:
    """With the template's timeout, memory, environment and directories, and the variables given over them."""
    plain = sandbox.functions[sandbox.outputs["Plain"]].configuration
    assert (plain.timeout, plain.memory, plain.handler) == (2, 256, "app.handler")
    assert (plain.code, plain.layers) == (TOY.parent / "plain", (TOY.parent / "library",))
    expected = {"RETRIES": "2", "STACK": "tidelog", "LAKE": sandbox.outputs["LakeBucket"], "EXTRA": "1"}
    assert expected.items() <= plain.environment.items()


def test_mappings_and_schedules_are_read_from_what_was_deployed(sandbox: Sandbox) -> None:
    """With their concurrency, and the expression."""
    (mapping,) = sandbox.deployment.mappings
    assert (mapping.batch_size, mapping.maximum_concurrency, mapping.reports_failures) == (1, 2, True)
    assert mapping.queue_arn.endswith(":tidelog-orders.fifo")
    (schedule,) = sandbox.deployment.schedules
    assert (schedule.expression, schedule.retries, schedule.event_age) == ("rate(1 hour)", 1, 300)
    assert (schedule.on_failure, schedule.dead_letters) == (sandbox.outputs["MissedArn"],) * 2
    assert schedule.target_arn == sandbox.outputs["PlainArn"]


@pytest.mark.parametrize("place", ["EventInvokeConfig", "ScheduleV2"])
def test_what_failed_goes_to_no_queue_that_keeps_an_order(cloud: Cloud, tmp_path: Path, place: str) -> None:
    """Lambda and EventBridge Scheduler refuse such a queue, and moto takes it."""
    arn = {"Fn::GetAtt": ["Queue", "Arn"]}
    on_failure = {"OnFailure": {"Type": "SQS", "Destination": arn}}
    function = {
        "Runtime": "python3.13",
        "Handler": "app.handler",
        "CodeUri": str(TOY.parent / "plain"),
        "EventInvokeConfig": {"DestinationConfig": on_failure} if place == "EventInvokeConfig" else {},
        "Events": {
            "Tick": {
                "Type": "ScheduleV2",
                "Properties": {
                    "ScheduleExpression": "rate(1 hour)",
                    **({"DeadLetterConfig": {"Arn": arn}} if place == "ScheduleV2" else {}),
                },
            }
        },
    }
    resources = {
        "Queue": {"Type": "AWS::SQS::Queue", "Properties": {"QueueName": f"{place}.fifo", "FifoQueue": True}},
        f"{place}Function": {"Type": "AWS::Serverless::Function", "Properties": function},
    }
    template = translate(written(tmp_path, {"Resources": resources}), {}, cloud.region)
    with pytest.raises(SandboxError, match=rf"read the .*: arn:.*:{place}\.fifo is not a standard queue"):
        deploy(cloud, template, f"in-order-{place}", {})


def test_the_types_that_moto_lacks_are_made(sandbox: Sandbox) -> None:
    """Alarm, subscription, policies, metric filter, retries of events; and the properties of a bucket."""
    (alarm,) = sandbox.client("cloudwatch").describe_alarms()["MetricAlarms"]
    assert (alarm["Period"], alarm["AlarmActions"]) == (60, [sandbox.outputs["Topic"]])
    (subscription,) = sandbox.client("sns").list_subscriptions()["Subscriptions"]
    assert (subscription["Protocol"], subscription["Endpoint"]) == ("email", "someone@example.com")
    topic = sandbox.client("sns").get_topic_attributes(TopicArn=sandbox.outputs["Topic"])["Attributes"]
    assert "cloudwatch.amazonaws.com" in topic["Policy"]
    url = sandbox.outputs["OrdersUrl"]
    queue = sandbox.client("sqs").get_queue_attributes(QueueUrl=url, AttributeNames=["Policy"])["Attributes"]
    assert "events.amazonaws.com" in queue["Policy"]
    (metrics,) = sandbox.client("logs").describe_metric_filters(logGroupName=sandbox.outputs["LogGroup"])[
        "metricFilters"
    ]
    assert metrics["metricTransformations"][0]["metricName"] == "errors"
    function = sandbox.outputs["Plain"]
    retrying = sandbox.client("lambda").get_function_event_invoke_config(FunctionName=function, Qualifier="$LATEST")
    assert retrying["MaximumRetryAttempts"] == 1
    s3, bucket = sandbox.client("s3"), sandbox.outputs["LakeBucket"]
    assert s3.get_bucket_versioning(Bucket=bucket)["Status"] == "Enabled"
    assert s3.get_bucket_lifecycle_configuration(Bucket=bucket)["Rules"][0]["ID"] == "old"


def test_a_bucket_for_tls_alone_is_open_here(sandbox: Sandbox) -> None:
    """The policy would deny everything: its condition is not looked at, and there is no TLS."""
    sandbox.client("s3").put_object(Bucket=sandbox.outputs["LakeBucket"], Key="x", Body=b"x")


def test_the_database_is_a_secret_in_the_format_of_rds(sandbox: Sandbox) -> None:
    """Its ARN is a parameter of the template."""
    arn = sandbox.functions[sandbox.outputs["Plain"]].configuration.environment["DATABASE"]
    secret = sandbox.client("secretsmanager").get_secret_value(SecretId=arn)["SecretString"]
    assert yaml.safe_load(secret) == {
        "engine": "postgres",
        "host": "db.example.com",
        "port": 5432,
        "dbname": "shop",
        "username": "reader",
        "password": "p@ss",
    }


@pytest.mark.parametrize("address", ["mysql://u@h/d", "postgresql://h/d", "postgresql://u@h", "shop"])
def test_an_address_that_is_none_of_postgresql_is_refused(address: str) -> None:
    """Without repeating it: it may hold a password."""
    with pytest.raises(SandboxError, match="it is not postgresql://") as refused:
        Sandbox(TOY, database=address)
    assert address not in str(refused.value)


def test_a_resource_of_an_unknown_type_is_refused(cloud: Cloud, tmp_path: Path) -> None:
    """Before anything is made, and by name."""
    resources = {
        "Topic": {"Type": "AWS::SNS::Topic", "Properties": {"TopicName": "not-made"}},
        "Pipe": {"Type": "AWS::Pipes::Pipe"},
    }
    template = translate(written(tmp_path, {"Resources": resources}), {}, cloud.region)
    with pytest.raises(SandboxError, match=r"Pipe: .*AWS::Pipes::Pipe"):
        deploy(cloud, template, "refused", {})
    assert not [topic for topic in cloud.client("sns").list_topics()["Topics"] if "not-made" in topic["TopicArn"]]


METRIC = ["AWS/SQS", "ApproximateNumberOfMessagesVisible", "QueueName", "nowhere"]
UNSEEN = {
    "is not JSON": "{",
    "no widgets of type pie": {"type": "pie"},
    "nowhere|does not exist|NonExistentQueue": {"type": "metric", "properties": {"metrics": [METRIC]}},
    "no metric AWS/SQS Age": {"type": "metric", "properties": {"metrics": [["AWS/SQS", "Age", "QueueName", "q"]]}},
    "no metrics of AWS/EC2": {"type": "metric", "properties": {"metrics": [["AWS/EC2", "CPU", "InstanceId", "i"]]}},
    "no log group gone": {"type": "log", "properties": {"query": "SOURCE 'gone' | fields a"}},
    "does not know the command parse": {"type": "log", "properties": {"query": "parse a"}},
    "no alarm off": {"type": "alarm", "properties": {"alarms": ["arn:aws:cloudwatch:eu-west-2:1:alarm:off"]}},
}


@pytest.mark.parametrize("complaint", UNSEEN)
def test_a_dashboard_that_would_show_nothing_is_refused(cloud: Cloud, complaint: str) -> None:
    """On AWS it is made, and stays empty."""
    widget = UNSEEN[complaint]
    body = widget if isinstance(widget, str) else json.dumps({"widgets": [widget]})
    resources = {"Seen": {"Type": "AWS::CloudWatch::Dashboard", "Properties": {"DashboardBody": body}}}
    with pytest.raises(SandboxError, match=complaint):
        deploy(cloud, {"Resources": resources}, f"unseen-{[*UNSEEN].index(complaint)}", {})


def test_a_saved_query_that_could_not_be_run_is_refused(cloud: Cloud) -> None:
    """Its log groups have to be there, and it has to be one."""
    query = {"Name": "none", "QueryString": "fields a", "LogGroupNames": ["gone"]}
    for change, complaint in (({}, "no log group gone"), ({"QueryString": "stats rows by table"}, "functions of many")):
        resources = {"Saved": {"Type": "AWS::Logs::QueryDefinition", "Properties": {**query, **change}}}
        with pytest.raises(SandboxError, match=complaint):
            deploy(cloud, {"Resources": resources}, f"unsaved-{len(change)}", {})


def test_an_alarm_that_is_made_of_alarms_is_refused(cloud: Cloud) -> None:
    """Nobody would evaluate it."""
    alarm = {"Type": "AWS::CloudWatch::CompositeAlarm", "Properties": {"AlarmRule": "TRUE"}}
    with pytest.raises(SandboxError, match=r"Both: the sandbox does not make .*CompositeAlarm"):
        deploy(cloud, {"Resources": {"Both": alarm}}, "composite", {})


def test_a_resource_that_cannot_be_made_is_named(cloud: Cloud, tmp_path: Path) -> None:
    """With the reason: here a property that no alarm has."""
    alarm = {"Type": "AWS::CloudWatch::Alarm", "Properties": {"Thresold": 1, "EvaluationPeriods": 1}}
    template = translate(written(tmp_path, {"Resources": {"Alarm": alarm}}), {}, cloud.region)
    with pytest.raises(SandboxError, match=r"(?s)Alarm: .*Thresold"):
        deploy(cloud, template, "broken", {})


def test_a_template_that_sam_refuses_says_why(cloud: Cloud, tmp_path: Path) -> None:
    """In SAM's own words."""
    function = {"Type": "AWS::Serverless::Function", "Properties": {"Handler": "app.handler"}}
    with pytest.raises(SandboxError, match="CodeUri"):
        translate(written(tmp_path, {"Resources": {"F": function}}), {}, cloud.region)


def test_code_that_is_not_there_is_named(cloud: Cloud, tmp_path: Path) -> None:
    """With the resource that wants it."""
    function = {"Type": "AWS::Serverless::Function", "Properties": {"CodeUri": "nowhere/"}}
    with pytest.raises(SandboxError, match=r"deploy F: CodeUri nowhere/"):
        translate(written(tmp_path, {"Resources": {"F": function}}), {}, cloud.region)


PARAMETERS = {
    "Size": {"Type": "Number", "MinValue": 2, "MaxValue": 9},
    "Rate": {
        "Type": "String",
        "AllowedPattern": "rate.+",
        "ConstraintDescription": "must be a rate",
        "Default": "rate(1)",
    },
    "Stage": {"Type": "String", "AllowedValues": ["dev", "prod"], "Default": "dev"},
}


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({}, "Size is needed"),
        ({"Size": "1"}, "Size must be at least 2"),
        ({"Size": "10"}, "Size must be at most 9"),
        ({"Size": "x"}, "Size must be a number"),
        ({"Size": "2", "Rate": "x"}, "Rate must be a rate"),
        ({"Size": "2", "Stage": "x"}, "Stage must be one of dev, prod"),
        ({"Size": "2", "Other": "x"}, "no Other"),
    ],
)
def test_a_parameter_that_the_template_does_not_allow_is_refused(
    cloud: Cloud, given: dict[str, str], complaint: str
) -> None:
    """As CloudFormation refuses it."""
    with pytest.raises(SandboxError, match=complaint):
        deploy(cloud, {"Parameters": PARAMETERS, "Resources": {}}, "parameters", given)


@pytest.mark.parametrize("size", ["2", "9"])
def test_both_ends_of_a_range_are_allowed(cloud: Cloud, size: str) -> None:
    """And two stacks are two."""
    topic = {"Type": "AWS::SNS::Topic", "Properties": {"TopicName": {"Fn::Sub": "${AWS::StackName}-topic"}}}
    template = {"Parameters": PARAMETERS, "Resources": {"Topic": topic}, "Outputs": {"T": {"Value": {"Ref": "Topic"}}}}
    assert deploy(cloud, template, f"range-{size}", {"Size": size}).outputs["T"].endswith(f":range-{size}-topic")


def test_a_deleted_stack_leaves_nothing_but_what_is_retained(cloud: Cloud, tmp_path: Path) -> None:
    """As its template says."""
    resources = {
        "Gone": {"Type": "AWS::SQS::Queue", "Properties": {"QueueName": "gone"}},
        "Alarm": {
            "Type": "AWS::CloudWatch::Alarm",
            "Properties": {
                "AlarmName": "gone",
                "EvaluationPeriods": 1,
                "Threshold": 1,
                "ComparisonOperator": "LessThanThreshold",
                "MetricName": "m",
                "Namespace": "n",
                "Period": 60,
                "Statistic": "Sum",
            },
        },
        "Kept": {"Type": "AWS::SQS::Queue", "DeletionPolicy": "Retain", "Properties": {"QueueName": "kept"}},
    }
    deploy(cloud, translate(written(tmp_path, {"Resources": resources}), {}, cloud.region), "deleted", {})
    delete(cloud, "deleted")
    queues = cloud.client("sqs").list_queues()["QueueUrls"]
    assert [url.rpartition("/")[2] for url in queues if url.endswith(("/gone", "/kept"))] == ["kept"]
    assert not cloud.client("cloudwatch").describe_alarms(AlarmNames=["gone"])["MetricAlarms"]
