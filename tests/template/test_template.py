"""What template.yaml promises, seen as CloudFormation gets it: translated, with its conditions decided."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from aws_lambda_powertools.shared import constants as powertools

from tests.template.conftest import PUBLIC, ROOT, USER, VARIANTS, Find, refusals_of, statements, truths_of, written_with
from tidelog.errors import InvalidSetting
from tidelog.settings import read_scheduler_settings, read_worker_settings

READERS: dict[str, Callable[[Mapping[str, str]], object]] = {
    "SchedulerFunction": read_scheduler_settings,
    "WorkerFunction": read_worker_settings,
}
QUEUES = ("WorkQueue", "BackfillQueue")


def test_each_condition_is_met_by_some_variant_and_not_by_another() -> None:
    """So all branches of the template are seen by the tests."""
    met = [truths_of(parameters) for parameters in VARIANTS.values()]
    for condition in met[0]:
        assert {truths[condition] for truths in met} == {True, False}, condition


@pytest.mark.parametrize("parameters", VARIANTS.values(), ids=VARIANTS)
def test_parameters_that_go_together_are_taken(parameters: dict[str, str]) -> None:
    """Each variant of these tests."""
    assert refusals_of(parameters) == []


@pytest.mark.parametrize(
    ("parameters", "refusal"),
    [
        ({"SubnetIds": "subnet-1"}, "SubnetIds need SecurityGroupIds"),
        ({"EndpointsVpcId": "vpc-1a"}, "EndpointsVpcId needs SubnetIds"),
        ({"DatabaseIamUser": USER, "DatabaseTls": "require"}, "DatabaseIamUser needs DatabaseTls=verify-full"),
    ],
)
def test_parameters_that_need_others_are_refused_without_them(parameters: dict[str, str], refusal: str) -> None:
    """Before anything is made of them, in words."""
    [said] = refusals_of({**PUBLIC, **parameters})
    assert said.startswith(refusal)


# https://docs.aws.amazon.com/AWSCloudFormation/latest/TemplateReference/intrinsic-function-reference-rules.html has
# Fn::If too, which is refused: https://github.com/aws-cloudformation/cloudformation-coverage-roadmap/issues/921
OF_RULES = {"Ref", "Fn::And", "Fn::Contains", "Fn::EachMemberEquals", "Fn::EachMemberIn", "Fn::Equals", "Fn::Not"}
OF_RULES |= {"Fn::Or", "Fn::RefAll", "Fn::ValueOf", "Fn::ValueOfAll"}


def test_rules_use_no_function_that_is_refused_there() -> None:
    """CloudFormation would not even make a change set, and neither linter tells."""
    rules = written_with({})[0]["Rules"]
    used = {name for name in keys_of(rules) if name == "Ref" or name.startswith("Fn::")}
    assert used
    assert used <= OF_RULES


def keys_of(node: Any) -> Iterator[str]:
    """Yield each key of a part of the template."""
    if isinstance(node, dict):
        yield from node
    for inner in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from keys_of(inner)


@pytest.mark.parametrize("command", [("sam", "validate", "--lint", "--template"), ("cfn-lint",)], ids=lambda c: c[0])
def test_the_linters_have_nothing_to_say(command: tuple[str, ...]) -> None:
    """SAM's validation and CloudFormation's linter accept the template, and warn of nothing."""
    environment = {**os.environ, "SAM_CLI_TELEMETRY": "0", "AWS_DEFAULT_REGION": "eu-west-2"}
    program = Path(sys.executable).with_name(command[0])

    done = subprocess.run(
        [program, *command[1:], ROOT / "template.yaml"], env=environment, capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert not re.search(r"\b[EWI]\d{4}\b", done.stdout + done.stderr)


@pytest.mark.parametrize("function", READERS)
def test_a_function_is_given_what_it_reads_and_nothing_else(function: str, resources: dict[str, Any]) -> None:
    """The settings name every variable that is missing: those are the variables that the template sets."""
    with pytest.raises(InvalidSetting) as refused:
        READERS[function]({})
    variables = resources[function]["Environment"]["Variables"]

    assert {name for name in variables if name.startswith("TIDELOG_")} == set(
        re.findall(r"TIDELOG_\w+", str(refused.value))
    )
    assert {name for name in variables if not name.startswith("TIDELOG_")} == {
        powertools.SERVICE_NAME_ENV,
        powertools.METRICS_NAMESPACE_ENV,
        powertools.POWERTOOLS_LOG_LEVEL_ENV,
    }


@pytest.mark.parametrize("function", READERS)
def test_the_defaults_are_settings_that_the_function_accepts(
    function: str, template: dict[str, Any], resources: dict[str, Any], parameters: dict[str, str]
) -> None:
    """A function reads its environment as it is when the operator says no more than is asked for."""
    known = {name: str(slot["Default"]) for name, slot in template["Parameters"].items() if "Default" in slot}
    known |= parameters
    variables = resources[function]["Environment"]["Variables"]

    READERS[function](
        {
            name: known.get(value["Ref"], "made") if isinstance(value, dict) and "Ref" in value else str(value)
            for name, value in variables.items()
        }
    )


def test_functions_run_the_layer_on_arm_and_log_to_their_own_group(of_type: Find, resources: dict[str, Any]) -> None:
    """Both share runtime, handler and layer; a log group has a retention, and nobody reserves concurrency."""
    (layer,) = of_type("Lambda::LayerVersion")
    groups = set()
    for name, function in of_type("Lambda::Function").items():
        assert (function["Runtime"], function["Architectures"], function["Handler"]) == (
            "python3.13",
            ["arm64"],
            "app.handler",
        )
        assert function["Layers"] == [{"Ref": layer}]
        assert "ReservedConcurrentExecutions" not in function, name
        group = function["LoggingConfig"]["LogGroup"]["Ref"]
        assert resources[group]["RetentionInDays"] == {"Ref": "LogRetentionDays"}
        groups.add(group)

    assert groups == set(of_type("Logs::LogGroup"))


def test_functions_are_in_the_vpc_if_there_is_one(of_type: Find, parameters: dict[str, str]) -> None:
    """With subnets both functions are attached to them, without neither is."""
    for function in of_type("Lambda::Function").values():
        if "SubnetIds" in parameters:
            assert function["VpcConfig"] == {
                "SubnetIds": {"Ref": "SubnetIds"},
                "SecurityGroupIds": {"Ref": "SecurityGroupIds"},
            }
        else:
            assert "VpcConfig" not in function


def test_both_queues_feed_the_worker_one_message_at_a_time(of_type: Find) -> None:
    """Each mapping has its own cap on concurrency, and a failed message comes back alone."""
    mappings = {
        mapping["EventSourceArn"]["Fn::GetAtt"][0]: mapping
        for mapping in of_type("Lambda::EventSourceMapping").values()
    }

    assert set(mappings) == set(QUEUES)
    for queue, mapping in mappings.items():
        assert mapping["FunctionName"] == {"Ref": "WorkerFunction"}
        assert mapping["BatchSize"] == 1
        assert mapping["FunctionResponseTypes"] == ["ReportBatchItemFailures"]
        assert mapping["ScalingConfig"] == {"MaximumConcurrency": {"Ref": queue.replace("Queue", "Concurrency")}}
        assert "FilterCriteria" not in mapping  # what a filter leaves out is deleted


@pytest.mark.parametrize("queue", QUEUES)
def test_a_message_stays_hidden_while_it_is_worked_off_and_ends_in_the_dead_letters(
    queue: str, resources: dict[str, Any]
) -> None:
    """It can't come back before the function's time is over, and outlives its way to the dead letters."""
    work, dead = resources[queue], resources["DeadLetters"]

    assert work["VisibilityTimeout"] > resources["WorkerFunction"]["Timeout"]
    assert work["RedrivePolicy"] == {
        "deadLetterTargetArn": {"Fn::GetAtt": ["DeadLetters", "Arn"]},
        "maxReceiveCount": {"Ref": "Tries"},
    }
    assert dead["MessageRetentionPeriod"] >= work["MessageRetentionPeriod"]


def test_queues_are_fifo_and_only_ours_redrive(of_type: Find) -> None:
    """CloudFormation wants the names of FIFO queues to end in .fifo; the dead letters take from the two queues only."""
    queues = of_type("SQS::Queue")

    assert set(queues) == {*QUEUES, "DeadLetters", "MissedTicks"}
    for name, queue in queues.items():
        # EventBridge Scheduler and Lambda's destinations send to standard queues only.
        assert queue.get("FifoQueue", False) is (name != "MissedTicks")
        assert queue["QueueName"]["Fn::Sub"].endswith(".fifo") is (name != "MissedTicks")
    allowed = queues["DeadLetters"]["RedriveAllowPolicy"]
    assert allowed["redrivePermission"] == "byQueue"
    assert [arn["Fn::Sub"].partition(":${AWS::AccountId}:")[2] for arn in allowed["sourceQueueArns"]] == [
        queues[queue]["QueueName"]["Fn::Sub"] for queue in QUEUES
    ]


def test_the_schedules_start_the_scheduler_and_give_up_before_the_next_ticks(of_type: Find) -> None:
    """Two stacks have schedules of their own: none is named. A tick and a sweep say when they were due."""
    tick, sweep = sorted(of_type("Scheduler::Schedule").values(), key=lambda each: each["ScheduleExpression"]["Ref"])

    for schedule, expression, age in ((tick, "Schedule", 300), (sweep, "SweepSchedule", 3600)):
        assert "Name" not in schedule
        assert schedule["ScheduleExpression"] == {"Ref": expression}
        assert schedule["Target"]["Arn"] == {"Fn::GetAtt": ["SchedulerFunction", "Arn"]}
        assert json.loads(schedule["Target"]["Input"])["scheduled_time"] == "<aws.scheduler.scheduled-time>"
        assert schedule["Target"]["RetryPolicy"]["MaximumEventAgeInSeconds"] <= age
    assert "type" not in json.loads(tick["Target"]["Input"])
    assert json.loads(sweep["Target"]["Input"])["type"] == "sweep"


def test_the_lake_is_kept_private_and_clean(template: dict[str, Any], resources: dict[str, Any]) -> None:
    """The bucket outlives the stack, keeps versions, is nobody else's, and forgets uploads that nobody completed."""
    bucket, lake = template["Resources"]["Lake"], resources["Lake"]

    assert bucket["DeletionPolicy"] == bucket["UpdateReplacePolicy"] == "Retain"
    assert lake["VersioningConfiguration"] == {"Status": "Enabled"}
    assert lake["PublicAccessBlockConfiguration"] == dict.fromkeys(
        ("BlockPublicAcls", "BlockPublicPolicy", "IgnorePublicAcls", "RestrictPublicBuckets"), True
    )
    assert lake["OwnershipControls"]["Rules"] == [{"ObjectOwnership": "BucketOwnerEnforced"}]
    assert lake["NotificationConfiguration"]["EventBridgeConfiguration"] == {"EventBridgeEnabled": True}
    uploads, failures, ticks = lake["LifecycleConfiguration"]["Rules"]
    assert uploads["Status"] == failures["Status"] == ticks["Status"] == "Enabled"
    assert (ticks["Prefix"], "ExpirationInDays" in ticks) == ("ticks/", False)
    assert uploads["AbortIncompleteMultipartUpload"] == {"DaysAfterInitiation": 7}
    assert not [key for key in uploads if "Expiration" in key or "Transition" in key]
    # Only notes on failed messages expire, and not before the message they are about.
    assert failures["Prefix"] == "failures/"
    lives = resources["WorkQueue"]["MessageRetentionPeriod"] + resources["DeadLetters"]["MessageRetentionPeriod"]
    assert failures["ExpirationInDays"] * 86400 > lives


def test_a_dead_letter_raises_an_alarm_that_reaches_the_administrators(resources: dict[str, Any]) -> None:
    """One visible message for a minute is enough; no data means no message."""
    alarm = resources["DeadLettersAlarm"]

    assert (alarm["Namespace"], alarm["MetricName"]) == ("AWS/SQS", "ApproximateNumberOfMessagesVisible")
    assert alarm["Dimensions"] == [{"Name": "QueueName", "Value": {"Fn::GetAtt": ["DeadLetters", "QueueName"]}}]
    assert (alarm["Statistic"], alarm["ComparisonOperator"], alarm["Threshold"]) == (
        "Maximum",
        "GreaterThanOrEqualToThreshold",
        1,
    )
    # One of two minutes: a minute in which somebody looks at the letters, which hides them, gives no all-clear.
    assert (alarm["Period"], alarm["EvaluationPeriods"], alarm["DatapointsToAlarm"]) == (60, 2, 1)
    assert alarm["TreatMissingData"] == "notBreaching"
    assert resources["AdministratorsEmail"] == {
        "TopicArn": {"Ref": "Administrators"},
        "Protocol": "email",
        "Endpoint": {"Ref": "AdminEmail"},
    }


ALARMS = {
    "DeadLettersAlarm": ("AWS/SQS", "ApproximateNumberOfMessagesVisible", "Maximum", "notBreaching"),
    "MissedTicksAlarm": ("AWS/SQS", "ApproximateNumberOfMessagesVisible", "Maximum", "notBreaching"),
    "OldestMessageAlarm": ("AWS/SQS", "ApproximateAgeOfOldestMessage", "Maximum", "notBreaching"),
    "SchedulerErrorsAlarm": ("AWS/Lambda", "Errors", "Sum", "notBreaching"),
    "WorkerErrorsAlarm": ("AWS/Lambda", "Errors", "Sum", "notBreaching"),
    "NoTickAlarm": ("tidelog", "Ticks", "Sum", "breaching"),
    "StaleTablesAlarm": ("tidelog", "StalestTableSeconds", "Maximum", "ignore"),
    "HorizonAlarm": ("tidelog", "HorizonHeldSeconds", "Maximum", "ignore"),
    "RefusedTablesAlarm": ("tidelog", "RefusedTables", "Maximum", "ignore"),
}
"""Depths and ages at their highest, events counted. What is not told of is well, but for ticks, and for what only ticks
tell of, which stays as it was."""


THRESHOLDS = {
    "NoTickAlarm": (1, "LessThanThreshold"),
    "StaleTablesAlarm": ({"Ref": "StaleSeconds"}, "GreaterThanOrEqualToThreshold"),
    "OldestMessageAlarm": ({"Ref": "StaleSeconds"}, "GreaterThanOrEqualToThreshold"),
    "HorizonAlarm": ({"Ref": "HorizonSeconds"}, "GreaterThanOrEqualToThreshold"),
}
"""Where it is not one of something, or more."""


def test_whatever_fails_or_falls_silent_has_an_alarm_with_words(of_type: Find, parameters: dict[str, str]) -> None:
    """Each tells of ALARM and of OK, says in its description which stack and what to look at, and watches one thing."""
    alarms = of_type("CloudWatch::Alarm")

    assert {
        name: (alarm["Namespace"], alarm["MetricName"], alarm["Statistic"], alarm["TreatMissingData"])
        for name, alarm in alarms.items()
    } == ALARMS
    for name, alarm in alarms.items():
        assert alarm["AlarmActions"] == alarm["OKActions"] == [{"Ref": "Administrators"}]
        assert "${AWS::StackName}" in alarm["AlarmDescription"]["Fn::Sub"], name
        assert len(alarm["AlarmDescription"]["Fn::Sub"]) < 900  # CloudWatch takes 1024 characters
        threshold, operator = THRESHOLDS.get(name, (1, "GreaterThanOrEqualToThreshold"))
        assert (alarm["Threshold"], alarm["ComparisonOperator"]) == (threshold, operator), name
        assert alarm["EvaluationPeriods"] == (2 if name == "DeadLettersAlarm" else 1), name
        assert alarm["Period"] == {"Ref": "StaleSeconds"} if name == "NoTickAlarm" else alarm["Period"] in (60, 300), (
            name
        )
        (dimension,) = alarm["Dimensions"]
        assert (
            dimension["Name"]
            == {"AWS/SQS": "QueueName", "AWS/Lambda": "FunctionName", "tidelog": "stack"}[alarm["Namespace"]]
        )


def test_the_dashboard_shows_every_alarm_and_its_metric(resources: dict[str, Any], of_type: Find) -> None:
    """tests/stack/test_dashboard.py holds the rest of it to what the functions emit and log."""
    widgets = json.loads(resources["Dashboard"]["DashboardBody"]["Fn::Sub"].replace("${StaleSeconds}", "1").replace(
        "${HorizonSeconds}", "1"))["widgets"]  # fmt: skip
    shown = {
        (row[0], row[1], row[3]) for widget in widgets for row in widget["properties"].get("metrics", [])
    }  # with the resource that it is of
    for name, alarm in of_type("CloudWatch::Alarm").items():
        [value] = (dimension["Value"] for dimension in alarm["Dimensions"])
        subject = ".".join(value["Fn::GetAtt"]) if "Fn::GetAtt" in value else value["Ref"]
        assert (alarm["Namespace"], alarm["MetricName"], f"${{{subject}}}") in shown, name
    [of_alarms] = [widget["properties"]["alarms"] for widget in widgets if widget["type"] == "alarm"]
    assert {arn.strip("${}") for arn in of_alarms} == {f"{name}.Arn" for name in of_type("CloudWatch::Alarm")}


def test_widgets_lie_side_by_side_within_the_24_columns(resources: dict[str, Any]) -> None:
    """No two share a place."""
    body = resources["Dashboard"]["DashboardBody"]["Fn::Sub"]
    places = [
        tuple(map(int, found)) for found in re.findall(r'"x": (\d+), "y": (\d+), "width": (\d+), "height": (\d+)', body)
    ]
    cells = [
        (x, y) for left, top, wide, high in places for x in range(left, left + wide) for y in range(top, top + high)
    ]
    assert len(places) == body.count('"type": ')
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < 24


def test_a_tick_that_can_not_be_started_or_fails_is_kept(resources: dict[str, Any], of_type: Find) -> None:
    """By the schedule where it could not start the function, by Lambda where the function failed each time."""
    kept = {"Fn::GetAtt": ["MissedTicks", "Arn"]}
    schedules = of_type("Scheduler::Schedule").values()
    (asynchronous,) = of_type("Lambda::EventInvokeConfig").values()

    assert [schedule["Target"]["DeadLetterConfig"] for schedule in schedules] == [{"Arn": kept}] * 2
    assert asynchronous["FunctionName"] == {"Ref": "SchedulerFunction"}
    assert asynchronous["DestinationConfig"]["OnFailure"]["Destination"] == kept
    for role in ("ScheduleRole", "SchedulerRole"):
        [statement] = [each for each in statements(resources[role]) if each["Sid"] == "KeepMissedTicks"]
        assert (statement["Action"], statement["Resource"]) == (["sqs:SendMessage"], [kept])


def test_a_second_stack_of_the_region_finds_no_name_taken(template: dict[str, Any]) -> None:
    """What has a name of its own has the stack's in it."""
    named = {
        (name, key): value
        for name, resource in template["Resources"].items()
        for key, value in resource.get("Properties", {}).items()
        if re.fullmatch(r"(Queue|Alarm|Dashboard|Topic|Role|Bucket|Layer|LogGroup|Function|Group|Schedule)?Name", key)
        and resource["Type"] not in ("AWS::Lambda::EventSourceMapping", "AWS::Lambda::EventInvokeConfig")
    }
    assert named
    for (name, key), value in named.items():
        assert "${AWS::StackName}" in value["Fn::Sub"], (name, key)


def test_what_a_parameter_may_be_is_said_and_its_default_is_that(template: dict[str, Any]) -> None:
    """By a pattern with words for it, by values or by a least one; lists of ids have types, tables any name."""
    for name, parameter in template["Parameters"].items():
        pattern, default = parameter.get("AllowedPattern"), parameter.get("Default")
        assert ("ConstraintDescription" in parameter) == (pattern is not None), name
        if parameter["Type"] == "String" and name not in ("IncludeTables", "ExcludeTables"):
            assert pattern or parameter["AllowedValues"], name
        if parameter["Type"] == "Number":
            assert "MinValue" in parameter or default in parameter["AllowedValues"], name
            assert default >= parameter.get("MinValue", 0), name
            assert default <= parameter.get("MaxValue", default), name
        if pattern and default is not None:
            assert re.search(pattern, default), name
        assert default in parameter.get("AllowedValues", [default]), name


def test_every_parameter_is_explained_and_shown_in_a_group(template: dict[str, Any]) -> None:
    """The console shows parameters by group, each with its description; what has no default is checked."""
    groups = template["Metadata"]["AWS::CloudFormation::Interface"]["ParameterGroups"]

    for name, parameter in template["Parameters"].items():
        assert re.search(r"\w.*\.$", parameter["Description"]), name
        assert "Default" in parameter or {"AllowedPattern", "ConstraintDescription"} <= set(parameter), name
    assert sorted(name for group in groups for name in group["Parameters"]) == sorted(template["Parameters"])


def test_the_outputs_name_everything_that_an_operator_uses(template: dict[str, Any], of_type: Find) -> None:
    """Bucket, queues, functions, topic and the parameters' prefix, each with a description."""
    shown = {output["Value"]["Ref"] for output in template["Outputs"].values() if "Ref" in output["Value"]}
    shown -= {"EncryptionKey"}
    kinds = ("S3::Bucket", "SQS::Queue", "Lambda::Function", "SNS::Topic")

    assert shown == {name for kind in kinds for name in of_type(kind)}
    assert template["Outputs"]["ParameterPrefix"]["Value"] == {"Fn::Sub": "/tidelog/${AWS::StackName}"}
    assert all(output["Description"] for output in template["Outputs"].values())
