"""Updates of a stack: what CloudFormation changes in place, and moto makes anew or leaves as it was."""

from typing import Any

from moto.iam.models import Role
from moto.logs.models import LogGroup
from moto.sns.models import Topic
from moto.sqs.models import Queue

from tidelog_sandbox.mending import mend


def install() -> None:
    """Let updates change roles, log groups, topics and queues in place."""
    mend(Role, "update_from_cloudformation_json", staticmethod(_update_role))
    mend(LogGroup, "update_from_cloudformation_json", staticmethod(_update_log_group))
    mend(Topic, "update_from_cloudformation_json", staticmethod(_update_topic))
    mend(Queue, "update_from_cloudformation_json", staticmethod(_update_queue))


def _update_role(original_resource: Role, cloudformation_json: Any, **_: str) -> Role:
    policies = {
        each["PolicyName"]: each["PolicyDocument"] for each in cloudformation_json["Properties"].get("Policies", [])
    }
    for gone in original_resource.policies.keys() - policies.keys():
        original_resource.delete_policy(gone)
    for name, policy in policies.items():
        original_resource.put_policy(name, policy)
    return original_resource


def _update_log_group(original_resource: LogGroup, cloudformation_json: Any, **_: str) -> LogGroup:
    properties = cloudformation_json["Properties"]
    original_resource.retention_in_days = properties.get("RetentionInDays")
    original_resource.kms_key_id = properties.get("KmsKeyId")
    return original_resource


def _update_topic(original_resource: Topic, cloudformation_json: Any, **_: str) -> Topic:
    properties = cloudformation_json["Properties"]
    original_resource.display_name = properties.get("DisplayName", "")
    original_resource.kms_master_key_id = properties.get("KmsMasterKeyId") or ""
    return original_resource


def _update_queue(original_resource: Queue, cloudformation_json: Any, **_: str) -> Queue:
    fixed = {"QueueName", "FifoQueue", "Tags"}
    values = {
        name: value
        for name, value in cloudformation_json["Properties"].items()
        if name not in fixed and value is not None
    }
    original_resource._set_attributes(values)  # noqa: SLF001  # moto's own
    return original_resource
