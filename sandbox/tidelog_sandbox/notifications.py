"""What CloudWatch publishes when an alarm changes its state, and how SNS words it for a reader of email."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import cache
from typing import Any
from urllib.parse import quote

from botocore.loaders import create_loader

SUBJECT_LIMIT = 100
"""The most characters of a subject."""


@cache
def region_name(region: str) -> str:
    """A region as the two services call it: ``EU (London)`` for eu-west-2."""
    for partition in create_loader().load_data("endpoints")["partitions"]:
        if found := partition["regions"].get(region):
            return str(found["description"]).replace("Europe", "EU")
    return region


def subject(notification: Mapping[str, Any]) -> str:
    """Of the email; a name that is too long for it is cut."""
    name, ending = notification["AlarmName"], f'" in {notification["Region"]}'
    room = SUBJECT_LIMIT - len(f'{notification["NewStateValue"]}: "{ending}')
    return f'{notification["NewStateValue"]}: "{name if len(name) <= room else name[: room - 3] + "..."}{ending}'


def text(notification: Mapping[str, Any]) -> str:
    """The email's text, without the footer that every email of SNS has.

    Raises:
        KeyError: the document is none of CloudWatch's.
    """
    name, arn = notification["AlarmName"], notification["AlarmArn"]
    new, region = notification["NewStateValue"], notification["Region"]
    code = arn.split(":")[3]
    when = _spoken(datetime.fromisoformat(notification["StateChangeTime"]))
    trigger = notification["Trigger"]
    return f"""\
You are receiving this email because your Amazon CloudWatch Alarm "{name}" in the {region} region has entered the \
{new} state, because "{notification["NewStateReason"]}" at "{when}".

View this alarm in the AWS Management Console:
https://{code}.console.aws.amazon.com/cloudwatch/deeplink.js?region={code}#alarmsV2:alarm/{quote(name, safe="")}

Alarm Details:
- Name:                       {name}
- Description:                {notification["AlarmDescription"] or ""}
- State Change:               {notification["OldStateValue"]} -> {new}
- Reason for State Change:    {notification["NewStateReason"]}
- Timestamp:                  {when}
- AWS Account:                {notification["AWSAccountId"]}
- Alarm Arn:                  {arn}

{_threshold(trigger)}
State Change Actions:
- OK: {_listed(notification["OKActions"])}
- ALARM: {_listed(notification["AlarmActions"])}
- INSUFFICIENT_DATA: {_listed(notification["InsufficientDataActions"])}"""


def _threshold(trigger: Mapping[str, Any]) -> str:
    if "MetricName" not in trigger:  # it does arithmetic with several
        return ""
    periods, period = trigger["EvaluationPeriods"], trigger["Period"]
    dimensions = _listed([f"{each['name']} = {each['value']}" for each in trigger["Dimensions"]])
    return f"""\
Threshold:
- The alarm is in the ALARM state when the metric is {trigger["ComparisonOperator"]} {trigger["Threshold"]} for at \
least {trigger.get("DatapointsToAlarm", periods)} of the last {periods} period(s) of {period} seconds.

Monitored Metric:
- MetricNamespace:                     {trigger["Namespace"]}
- MetricName:                          {trigger["MetricName"]}
- Dimensions:                          {dimensions}
- Period:                              {period} seconds
- Statistic:                           {str(trigger["Statistic"]).title().replace("_", "")}
- Unit:                                {trigger["Unit"] or "not specified"}
- TreatMissingData:                    {trigger["TreatMissingData"]}

"""


def _listed(values: Sequence[str]) -> str:
    return " ".join(f"[{value}]" for value in values)


def _spoken(moment: datetime) -> str:
    return f"{moment:%A %d %B, %Y %H:%M:%S} UTC"
