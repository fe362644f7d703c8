"""CloudWatch as the real one behaves, where moto does not.

moto's alarms begin as OK, do nothing when their state changes, and its metrics are kept for ever.
"""

import itertools
import json
from datetime import UTC, datetime, timedelta
from typing import Any

from moto.cloudwatch.models import Alarm, CloudWatchBackend
from moto.sns.models import sns_backends

from tidelog_sandbox import notifications
from tidelog_sandbox.mending import mend

_KEPT = timedelta(days=1)


def install() -> None:
    """Mend moto's CloudWatch."""

    def put_metric_alarm(backend: CloudWatchBackend, *args: Any, **kwargs: Any) -> Alarm:
        before = backend.alarms.get(kwargs["name"])
        alarm: Alarm = put_alarm(backend, *args, **kwargs)
        alarm.state_value = "INSUFFICIENT_DATA"
        if before:  # it is put again, and its state stays
            alarm.state_value, alarm.state_reason = before.state_value, before.state_reason
        return alarm

    def set_alarm_state(
        backend: CloudWatchBackend, alarm_name: str, reason: str, reason_data: str, state_value: str
    ) -> None:
        alarm = backend.alarms.get(alarm_name)
        if alarm and alarm.state_value != state_value and alarm.actions_enabled:
            _act(backend, alarm, state_value, reason)  # first, so that whoever sees the state finds the email too
        set_state(backend, alarm_name, reason, reason_data, state_value)

    def put_metric_data(backend: CloudWatchBackend, *args: Any, **kwargs: Any) -> None:
        put_data(backend, *args, **kwargs)
        oldest = datetime.now(UTC).replace(tzinfo=None) - _KEPT
        old = itertools.takewhile(lambda datum: datum.timestamp.replace(tzinfo=None) < oldest, backend.metric_data)
        del backend.metric_data[: sum(1 for _ in old)]

    put_alarm = mend(CloudWatchBackend, "put_metric_alarm", put_metric_alarm)
    set_state = mend(CloudWatchBackend, "set_alarm_state", set_alarm_state)
    put_data = mend(CloudWatchBackend, "put_metric_data", put_metric_data)


def _act(backend: CloudWatchBackend, alarm: Alarm, state: str, reason: str) -> None:
    """Publish to the topics that an alarm names for a new state."""
    actions = {
        "OK": alarm.ok_actions,
        "ALARM": alarm.alarm_actions,
        "INSUFFICIENT_DATA": alarm.insufficient_data_actions,
    }
    notification = _notification(backend, alarm, state, reason)
    for arn in actions.get(state, []):
        if arn.split(":")[2] == "sns":
            sns_backends[backend.account_id][arn.split(":")[3]].publish(
                json.dumps(notification), arn, subject=notifications.subject(notification)
            )


def _notification(backend: CloudWatchBackend, alarm: Alarm, state: str, reason: str) -> dict[str, Any]:
    """What is published: https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/alarm-notification-schema.html."""
    return {
        "AlarmName": alarm.name,
        "AlarmDescription": alarm.description,
        "AWSAccountId": backend.account_id,
        "AlarmConfigurationUpdatedTimestamp": _written(alarm.configuration_updated_timestamp),
        "NewStateValue": state,
        "NewStateReason": reason,
        "StateChangeTime": _written(datetime.now(UTC)),
        "Region": notifications.region_name(backend.region_name),
        "AlarmArn": alarm.alarm_arn,
        "OldStateValue": alarm.state_value,
        "OKActions": alarm.ok_actions,
        "AlarmActions": alarm.alarm_actions,
        "InsufficientDataActions": alarm.insufficient_data_actions,
        "Trigger": _trigger(alarm),
    }


def _trigger(alarm: Alarm) -> dict[str, Any]:
    if not alarm.metric_name:
        return {"Metrics": [{"Id": each.id, "Expression": each.expression} for each in alarm.metric_data_queries]}
    return {
        "MetricName": alarm.metric_name,
        "Namespace": alarm.namespace,
        "StatisticType": "Statistic",
        "Statistic": "SAMPLE_COUNT" if alarm.statistic == "SampleCount" else str(alarm.statistic).upper(),
        "Unit": alarm.unit,
        "Dimensions": [{"value": each.value, "name": each.name} for each in alarm.dimensions],
        "Period": int(alarm.period),
        "EvaluationPeriods": int(alarm.evaluation_periods),
        **({"DatapointsToAlarm": int(alarm.datapoints_to_alarm)} if alarm.datapoints_to_alarm else {}),
        "ComparisonOperator": alarm.comparison_operator,
        "Threshold": float(alarm.threshold),
        "TreatMissingData": alarm.treat_missing_data or "missing",
        "EvaluateLowSampleCountPercentile": alarm.evaluate_low_sample_count_percentile or "",
    }


def _written(moment: datetime) -> str:
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03d}+0000"
