"""The resource types and properties that moto's CloudFormation leaves out, each by the call that makes it."""

import json
import uuid
from typing import Any

from moto.awslambda.models import LambdaFunction, LayerVersion
from moto.cloudwatch.models import Dashboard
from moto.core.common_models import CloudFormationModel
from moto.logs.models import LogGroup
from moto.s3.models import FakeBucket

from tidelog_sandbox.cloud import ACCOUNT
from tidelog_sandbox.dashboards import check_dashboard, check_query
from tidelog_sandbox.mending import add, mend
from tidelog_sandbox.permissions import demand_conditions
from tidelog_sandbox.stacks import Api, Made, ResourceType, name_failures, refuse_unknown_types, register


def _alarm(api: Api, name: str, properties: dict[str, Any]) -> Made:
    api.call("cloudwatch", "PutMetricAlarm", **{**properties, "AlarmName": name})
    return Made(name, {"Arn": _arn(api, "cloudwatch", f"alarm:{name}")})


def _remove_alarm(api: Api, ref: str) -> None:
    api.call("cloudwatch", "DeleteAlarms", AlarmNames=[ref])


def _schedule(api: Api, name: str, properties: dict[str, Any]) -> Made:
    arn = api.call("scheduler", "CreateSchedule", **{**properties, "Name": name})["ScheduleArn"]
    return Made(name, {"Arn": arn})


def _subscription(api: Api, _name: str, properties: dict[str, Any]) -> Made:
    target = {name: properties.pop(name) for name in ("TopicArn", "Protocol", "Endpoint")}
    attributes = {
        name: json.dumps(value) if isinstance(value, dict) else str(value) for name, value in properties.items()
    }
    arn = api.call("sns", "Subscribe", **target, Attributes=attributes, ReturnSubscriptionArn=True)["SubscriptionArn"]
    return Made(arn, {"Arn": arn})


def _bucket_policy(api: Api, name: str, properties: dict[str, Any]) -> Made:
    demand_conditions(properties["PolicyDocument"])
    if policy := _enforceable(properties["PolicyDocument"]):
        api.call("s3", "PutBucketPolicy", Bucket=properties["Bucket"], Policy=policy)
    return Made(name, {})


def _queue_policy(api: Api, name: str, properties: dict[str, Any]) -> Made:
    policy = _enforceable(properties["PolicyDocument"])
    for queue in properties["Queues"] if policy else ():
        api.call("sqs", "SetQueueAttributes", QueueUrl=queue, Attributes={"Policy": policy})
    return Made(name, {})


def _topic_policy(api: Api, name: str, properties: dict[str, Any]) -> Made:
    policy = _enforceable(properties["PolicyDocument"])
    for topic in properties["Topics"] if policy else ():
        api.call("sns", "SetTopicAttributes", TopicArn=topic, AttributeName="Policy", AttributeValue=policy)
    return Made(name, {})


def _metric_filter(api: Api, name: str, properties: dict[str, Any]) -> Made:
    transformations = [
        {
            **{key[0].lower() + key[1:]: value for key, value in transformation.items() if key != "Dimensions"},
            **({"dimensions": {each["Key"]: each["Value"] for each in dimensions}} if dimensions else {}),
        }
        for transformation in properties["MetricTransformations"]
        for dimensions in [transformation.get("Dimensions")]
    ]
    api.call(
        "logs",
        "PutMetricFilter",
        filterName=name,
        logGroupName=properties["LogGroupName"],
        filterPattern=properties["FilterPattern"],
        metricTransformations=transformations,
    )
    return Made(name, {})


def _event_invoke_config(api: Api, name: str, properties: dict[str, Any]) -> Made:
    api.call("lambda", "PutFunctionEventInvokeConfig", **properties)
    return Made(name, {})


def _query(api: Api, name: str, properties: dict[str, Any]) -> Made:
    """It is there for the console alone, and moto has no call for it; but it can be said whether it could be run."""
    check_query(api, properties)
    return Made(str(uuid.uuid5(uuid.NAMESPACE_URL, name)), {})


TYPES = (
    ResourceType("AWS::CloudWatch::Alarm", "AlarmName", _alarm, _remove_alarm),
    ResourceType(
        "AWS::Scheduler::Schedule",
        "Name",
        _schedule,
        lambda api, ref: api.call("scheduler", "DeleteSchedule", Name=ref),
    ),
    ResourceType(
        "AWS::SNS::Subscription",
        "",
        _subscription,
        lambda api, ref: api.call("sns", "Unsubscribe", SubscriptionArn=ref),
    ),
    ResourceType("AWS::S3::BucketPolicy", "", _bucket_policy),
    ResourceType("AWS::SQS::QueuePolicy", "", _queue_policy),
    ResourceType("AWS::SNS::TopicPolicy", "", _topic_policy),
    ResourceType("AWS::Logs::MetricFilter", "FilterName", _metric_filter),
    ResourceType("AWS::Logs::QueryDefinition", "Name", _query),
    ResourceType("AWS::Lambda::EventInvokeConfig", "", _event_invoke_config),
)


def install(endpoint: str) -> list[type[CloudFormationModel]]:
    """Make moto's CloudFormation complete. The classes that it returns have to be kept."""
    refuse_unknown_types()
    name_failures()
    _complete_functions()
    _complete_log_groups()
    _complete_buckets(endpoint)
    _check_dashboards(endpoint)
    return [register(kind, endpoint) for kind in TYPES]


def _arn(api: Api, service: str, resource: str) -> str:
    return f"arn:aws:{service}:{api.region}:{ACCOUNT}:{resource}"


def _enforceable(policy: dict[str, Any]) -> str:
    """A policy without the statements that deny something on a condition: moto ignores that, and denies it always.

    Empty if nothing is left.
    """
    statements = [each for each in policy["Statement"] if each["Effect"] == "Allow" or "Condition" not in each]
    return json.dumps({**policy, "Statement": statements}) if statements else ""


def _complete_functions() -> None:
    """Layers and architectures, which moto drops, and a layer's Ref, which it lacks."""
    add(LayerVersion, "physical_resource_id", property(lambda layer: layer.arn))  # what Ref gives

    def complete(name: str, document: Any, account_id: str, region_name: str, **kwargs: Any) -> LambdaFunction:
        function: LambdaFunction = create(name, document, account_id, region_name, **kwargs)
        properties = document["Properties"]
        function.layers = function._get_layers_data(properties.get("Layers", []))  # noqa: SLF001  # moto's own
        function.architectures = properties.get("Architectures", ["x86_64"])
        return function

    create = mend(LambdaFunction, "create_from_cloudformation_json", staticmethod(complete))


def _complete_log_groups() -> None:
    """The ARN that GetAtt gives is that of the group's streams."""

    def get_attribute(group: LogGroup, name: str) -> str:
        arn: str = get(group, name)
        return f"{arn}:*"

    get = mend(LogGroup, "get_cfn_attribute", get_attribute)


def _complete_buckets(endpoint: str) -> None:
    """All of a bucket but its name, encryption and tags, which is what moto makes."""

    def complete(name: str, document: Any, account_id: str, region_name: str, **kwargs: Any) -> FakeBucket:
        bucket: FakeBucket = create(name, document, account_id, region_name, **kwargs)
        properties = document.get("Properties", {})
        api = Api(endpoint, region_name)
        if versioning := properties.get("VersioningConfiguration"):
            api.call("s3", "PutBucketVersioning", Bucket=name, VersioningConfiguration=versioning)
        if block := properties.get("PublicAccessBlockConfiguration"):
            api.call("s3", "PutPublicAccessBlock", Bucket=name, PublicAccessBlockConfiguration=block)
        if controls := properties.get("OwnershipControls"):
            api.call("s3", "PutBucketOwnershipControls", Bucket=name, OwnershipControls=controls)
        if lifecycle := properties.get("LifecycleConfiguration"):
            rules = [_lifecycle_rule(rule) for rule in lifecycle["Rules"]]
            api.call("s3", "PutBucketLifecycleConfiguration", Bucket=name, LifecycleConfiguration={"Rules": rules})
        if properties.get("NotificationConfiguration", {}).get("EventBridgeConfiguration"):
            api.call(
                "s3",
                "PutBucketNotificationConfiguration",
                Bucket=name,
                NotificationConfiguration={"EventBridgeConfiguration": {}},
            )
        return bucket

    create = mend(FakeBucket, "create_from_cloudformation_json", staticmethod(complete))


def _check_dashboards(endpoint: str) -> None:
    def check(name: str, document: Any, account_id: str, region_name: str, **kwargs: Any) -> Dashboard:
        check_dashboard(Api(endpoint, region_name), document["Properties"]["DashboardBody"])
        dashboard: Dashboard = create(name, document, account_id, region_name, **kwargs)
        return dashboard

    create = mend(Dashboard, "create_from_cloudformation_json", staticmethod(check))


def _lifecycle_rule(rule: dict[str, Any]) -> dict[str, Any]:
    """A rule as the API has it: some names differ from CloudFormation's."""
    rule = dict(rule)
    fitted: dict[str, Any] = {"Filter": {"Prefix": rule.pop("Prefix", "")}, "ID": rule.pop("Id", "")}
    if (days := rule.pop("ExpirationInDays", None)) is not None:
        fitted["Expiration"] = {"Days": days}
    if rule.pop("ExpiredObjectDeleteMarker", None):
        fitted["Expiration"] = {"ExpiredObjectDeleteMarker": True}
    return {**fitted, **rule}
