"""What SNS would mail can be read, as a person would read it."""

import json
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tidelog_sandbox import Email, Sandbox
from tidelog_sandbox.cloud import Cloud
from tidelog_sandbox.emails import Mailbox
from tidelog_sandbox.notifications import region_name

TO = "someone@example.com"


@pytest.fixture
def topic(cloud: Cloud) -> str:
    """A topic that someone is subscribed to, by email."""
    sns = cloud.client("sns")
    arn: str = sns.create_topic(Name=uuid.uuid4().hex, Attributes={"DisplayName": "tidelog"})["TopicArn"]
    sns.subscribe(TopicArn=arn, Protocol="email", Endpoint=TO)
    return arn


@pytest.fixture
def new(cloud: Cloud) -> Callable[[], list[Email]]:
    """What is mailed from now on."""
    before = len(Mailbox(cloud).emails)
    return lambda: list(Mailbox(cloud).emails[before:])


@pytest.fixture
def alarm(cloud: Cloud, topic: str) -> str:
    """An alarm that tells the topic of everything."""
    name = f"too much-{uuid.uuid4().hex[:8]}"
    put(cloud, name, topic)
    return name


def put(cloud: Cloud, name: str, topic: str, **more: Any) -> None:
    """Make an alarm."""
    cloud.client("cloudwatch").put_metric_alarm(
        **{
            "AlarmName": name,
            "AlarmDescription": "It is more\nthan enough.",
            "Namespace": "toy",
            "MetricName": "much",
            "Dimensions": [{"Name": "kind", "Value": "any"}],
            "Statistic": "Sum",
            "Period": 60,
            "EvaluationPeriods": 3,
            "DatapointsToAlarm": 2,
            "Threshold": 10,
            "ComparisonOperator": "GreaterThanThreshold",
            "AlarmActions": [topic],
            "OKActions": [topic],
            **more,
        }
    )


def set_state(cloud: Cloud, name: str, state: str, reason: str = "I say so") -> None:
    """Give an alarm a state by hand."""
    cloud.client("cloudwatch").set_alarm_state(AlarmName=name, StateValue=state, StateReason=reason)


def test_a_message_is_mailed_to_those_who_are_subscribed(
    cloud: Cloud, topic: str, new: Callable[[], list[Email]]
) -> None:
    """With the name of the topic, and the footer that every email of SNS has."""
    cloud.client("sns").publish(TopicArn=topic, Subject="Well", Message="All is well.\n\nGood.")
    (email,) = new()
    assert (email.sender, email.to, email.subject) == ("tidelog <no-reply@sns.amazonaws.com>", TO, "Well")
    assert timedelta() <= datetime.now(UTC) - email.sent_at < timedelta(minutes=1)
    message, footer = email.body.split("\n\n\n--\n")
    assert message == "All is well.\n\nGood."
    stop, link, _, contact = footer.splitlines()
    assert stop == (
        "If you wish to stop receiving notifications from this topic, please click or visit the link below to "
        "unsubscribe:"
    )
    assert link.startswith("https://sns.eu-west-2.amazonaws.com/unsubscribe.html?SubscriptionArn=arn:aws:sns:")
    assert link.endswith(f"&Endpoint={TO}")
    assert contact.startswith("Please do not reply directly to this email.")


def test_an_email_reads_as_one() -> None:
    """Its headings, an empty line, its text."""
    email = Email(datetime(2026, 11, 23, 12, 5, tzinfo=UTC), "a <a@example.com>", "b@example.com", "Hello", "Text\n")
    assert str(email) == (
        "From: a <a@example.com>\nTo: b@example.com\nDate: Mon, 23 Nov 2026 12:05:00 +0000\nSubject: Hello\n\nText\n"
    )


def test_sns_has_names_of_its_own_for_what_is_not_given(cloud: Cloud, new: Callable[[], list[Email]]) -> None:
    """Of the sender and of the subject."""
    sns = cloud.client("sns")
    arn = sns.create_topic(Name="nameless")["TopicArn"]
    sns.subscribe(TopicArn=arn, Protocol="email", Endpoint=TO)
    sns.publish(TopicArn=arn, Message="x")
    (email,) = new()
    assert email.sender == "AWS Notifications <no-reply@sns.amazonaws.com>"
    assert email.subject == "AWS Notification Message"


def test_an_email_has_the_text_that_is_meant_for_it(cloud: Cloud, topic: str, new: Callable[[], list[Email]]) -> None:
    """Of a message that has one for each protocol."""
    texts = json.dumps({"default": "for all", "email": "for email"})
    cloud.client("sns").publish(TopicArn=topic, MessageStructure="json", Message=texts)
    (email,) = new()
    assert email.body.startswith("for email\n")


def test_a_filter_keeps_emails_out(cloud: Cloud, topic: str, new: Callable[[], list[Email]]) -> None:
    """As it keeps out other messages."""
    sns = cloud.client("sns")
    policy = json.dumps({"kind": ["wanted"]})
    sns.subscribe(TopicArn=topic, Protocol="email", Endpoint="picky@example.com", Attributes={"FilterPolicy": policy})
    for kind in ("wanted", "other"):
        attributes = {"kind": {"DataType": "String", "StringValue": kind}}
        sns.publish(TopicArn=topic, Subject=kind, Message="x", MessageAttributes=attributes)
    assert [email.subject for email in new() if email.to == "picky@example.com"] == ["wanted"]


@pytest.mark.parametrize("subject", ["x" * 101, "two\nlines", "tab\there", "größer", "a—b"])
def test_a_subject_that_is_none_is_refused(
    cloud: Cloud, topic: str, new: Callable[[], list[Email]], subject: str
) -> None:
    """One at a time, and in a batch."""
    sns = cloud.client("sns")
    with pytest.raises(sns.exceptions.InvalidParameterException, match="Invalid parameter: Subject"):
        sns.publish(TopicArn=topic, Message="x", Subject=subject)
    entries = [{"Id": "bad", "Message": "x", "Subject": subject}, {"Id": "good", "Message": "x", "Subject": "x" * 100}]
    answer = sns.publish_batch(TopicArn=topic, PublishBatchRequestEntries=entries)
    assert [(each["Id"], each["Code"]) for each in answer["Failed"]] == [("bad", "InvalidParameter")]
    assert [email.subject for email in new()] == ["x" * 100]


def test_an_alarm_that_goes_off_is_mailed_in_words(
    cloud: Cloud, alarm: str, topic: str, new: Callable[[], list[Email]]
) -> None:
    """With what it watches, why it went off, and whom it tells."""
    set_state(cloud, alarm, "ALARM")
    (email,) = new()
    assert email.subject == f'ALARM: "{alarm}" in EU (London)'
    assert email.body.startswith(
        f'You are receiving this email because your Amazon CloudWatch Alarm "{alarm}" in the EU (London) region has '
        'entered the ALARM state, because "I say so" at "'
    )
    assert f"#alarmsV2:alarm/{alarm.replace(' ', '%20')}\n" in email.body
    for line in (
        f"- Name:                       {alarm}",
        "- Description:                It is more",
        "- State Change:               INSUFFICIENT_DATA -> ALARM",
        "- Reason for State Change:    I say so",
        "- AWS Account:                123456789012",
        f"- Alarm Arn:                  arn:aws:cloudwatch:eu-west-2:123456789012:alarm:{alarm}",
        "- Dimensions:                          [kind = any]",
        "- Statistic:                           Sum",
        "- TreatMissingData:                    missing",
        f"- ALARM: [{topic}]",
        "- INSUFFICIENT_DATA: ",
    ):
        assert line in email.body.splitlines()
    assert "is GreaterThanThreshold 10.0 for at least 2 of the last 3 period(s) of 60 seconds.\n" in email.body
    assert email.body.count("\n--\n") == 1


def test_an_alarm_tells_of_changes_alone(cloud: Cloud, alarm: str, new: Callable[[], list[Email]]) -> None:
    """Of those that it has actions for, and only while they are enabled."""
    cloudwatch = cloud.client("cloudwatch")
    for state in ("ALARM", "ALARM", "OK", "INSUFFICIENT_DATA"):
        set_state(cloud, alarm, state)
    cloudwatch.disable_alarm_actions(AlarmNames=[alarm])
    set_state(cloud, alarm, "ALARM")
    cloudwatch.enable_alarm_actions(AlarmNames=[alarm])
    set_state(cloud, alarm, "OK")
    assert [email.subject.partition(":")[0] for email in new()] == ["ALARM", "OK", "OK"]


def test_an_alarm_that_is_put_again_keeps_its_state(cloud: Cloud, alarm: str, topic: str) -> None:
    """A new one has none yet."""
    cloudwatch = cloud.client("cloudwatch")

    def state() -> str:
        return str(cloudwatch.describe_alarms(AlarmNames=[alarm])["MetricAlarms"][0]["StateValue"])

    assert state() == "INSUFFICIENT_DATA"
    set_state(cloud, alarm, "OK")
    put(cloud, alarm, topic, Threshold=11)
    assert state() == "OK"


def test_the_name_of_an_alarm_is_cut_where_the_subject_ends(
    cloud: Cloud, topic: str, new: Callable[[], list[Email]]
) -> None:
    """At a hundred characters."""
    put(cloud, "n" * 200, topic)
    set_state(cloud, "n" * 200, "ALARM")
    (email,) = new()
    assert len(email.subject) == 100
    assert email.subject.endswith('nnn..." in EU (London)')


def test_other_subscribers_get_an_alarm_as_a_document(cloud: Cloud, alarm: str, topic: str) -> None:
    """That a program can read."""
    sqs = cloud.client("sqs")
    url = sqs.create_queue(QueueName=uuid.uuid4().hex)["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    cloud.client("sns").subscribe(TopicArn=topic, Protocol="sqs", Endpoint=arn)
    set_state(cloud, alarm, "ALARM")
    (message,) = sqs.receive_message(QueueUrl=url)["Messages"]
    notification = json.loads(json.loads(message["Body"])["Message"])
    assert (notification["AlarmName"], notification["OldStateValue"], notification["NewStateValue"]) == (
        alarm,
        "INSUFFICIENT_DATA",
        "ALARM",
    )
    assert notification["Region"] == "EU (London)"
    assert notification["Trigger"]["Dimensions"] == [{"name": "kind", "value": "any"}]
    assert (notification["Trigger"]["Statistic"], notification["Trigger"]["Threshold"]) == ("SUM", 10.0)
    assert datetime.fromisoformat(notification["StateChangeTime"]).utcoffset() == timedelta()


@pytest.mark.parametrize(
    ("region", "name"),
    [("eu-west-2", "EU (London)"), ("us-east-1", "US East (N. Virginia)"), ("xx-none-1", "xx-none-1")],
)
def test_a_region_has_a_name(region: str, name: str) -> None:
    """Or else its code is one."""
    assert region_name(region) == name


def test_the_emails_of_a_stack_can_be_waited_for(sandbox: Sandbox) -> None:
    """Until the one that is meant has come; if it does not, what came instead is told."""
    publish = sandbox.client("sns").publish
    publish(TopicArn=sandbox.outputs["Topic"], Subject="first", Message="x")
    publish(TopicArn=sandbox.outputs["Topic"], Subject="second", Message="x")
    email = sandbox.wait_for_email(lambda email: email.subject == "second", 10)
    assert (email.sender, email.to) == ("toy <no-reply@sns.amazonaws.com>", TO)
    assert [email.subject for email in sandbox.emails][-2:] == ["first", "second"]
    with pytest.raises(TimeoutError, match=r"after 0 seconds; what came: .*'first' to someone@.*'second'"):
        sandbox.wait_for_email(lambda email: email.subject == "third", 0)
