"""template.yaml, deployed: translated by SAM's own translator and made by CloudFormation.

The code stays where it is: a local ``CodeUri`` or ``ContentUri`` becomes the address of an object that does not exist,
whose key is the path, and the functions run from there. A layer's directory is importable as it is.
"""

import json
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from botocore.exceptions import ClientError

from tidelog_sandbox import parameters as parameters_of
from tidelog_sandbox.cloud import Cloud
from tidelog_sandbox.errors import SandboxError
from tidelog_sandbox.runtime import FunctionConfiguration

_RETRIES = 2
_EVENT_AGE = 6 * 3600
_PLACEHOLDER = "s3://sandbox/"
_CODE = {"AWS::Serverless::Function": "CodeUri", "AWS::Serverless::LayerVersion": "ContentUri"}


@dataclass(frozen=True, slots=True)
class MappingConfiguration:
    """An event source mapping: which queue's messages a function gets, and how.

    Attributes:
        uuid: its identity.
        queue_arn: the queue.
        function_arn: the function.
        batch_size: the most messages of one invocation.
        maximum_concurrency: the most invocations at a time; None is Lambda's own limit.
        reports_failures: whether the function names the messages that failed (ReportBatchItemFailures).
    """

    uuid: str
    queue_arn: str
    function_arn: str
    batch_size: int
    maximum_concurrency: int | None
    reports_failures: bool


@dataclass(frozen=True, slots=True)
class ScheduleConfiguration:
    """A schedule of EventBridge Scheduler.

    Attributes:
        arn: its ARN.
        expression: ``rate(…)`` or ``cron(…)``.
        timezone: in which a cron expression is meant.
        target_arn: the function that it starts.
        role: the ARN of the role with which it does so.
        input: the payload, JSON with ``<aws.scheduler.…>`` placeholders.
        maximum_age: seconds after which an invocation that has not been made is given up.
        retries: how often an invocation that failed is made again. It is not the schedule's retry policy that says so,
            which is for a target out of reach: a schedule invokes asynchronously, and Lambda itself tries again.
        event_age: seconds after which Lambda tries no more.
        on_failure: the queue that Lambda tells of an invocation that it has given up; None if there is none.
        dead_letters: the queue for what the schedule could not deliver to the function; None if there is none.
    """

    arn: str
    expression: str
    timezone: str
    target_arn: str
    role: str
    input: str
    maximum_age: int
    retries: int
    event_age: int = _EVENT_AGE
    on_failure: str | None = None
    dead_letters: str | None = None


@dataclass(frozen=True, slots=True)
class Deployment:
    """A deployed stack: what its template made."""

    stack: str
    outputs: Mapping[str, str]
    functions: tuple[FunctionConfiguration, ...]
    mappings: tuple[MappingConfiguration, ...]
    schedules: tuple[ScheduleConfiguration, ...]


def translate(template: Path, parameters: Mapping[str, str], region: str) -> dict[str, Any]:
    """The CloudFormation template that SAM makes of a template file.

    Raises:
        SandboxError: SAM refuses the template.
    """
    import boto3  # noqa: PLC0415  # half a second together, that the start of the server hides
    from samtranslator.model.exceptions import InvalidDocumentException  # noqa: PLC0415  # the same
    from samtranslator.parser.parser import Parser  # noqa: PLC0415  # the same
    from samtranslator.translator.translator import Translator  # noqa: PLC0415  # the same
    from samtranslator.yaml_helper import yaml_parse  # noqa: PLC0415  # the same

    # It warns of metrics of its own when a template is refused.
    logging.getLogger("samtranslator.metrics").setLevel(logging.ERROR)
    document = yaml_parse(template.read_text())
    _replace_code(document, template.resolve().parent)
    defaults = {name: slot["Default"] for name, slot in document.get("Parameters", {}).items() if "Default" in slot}
    try:
        translated: dict[str, Any] = Translator({}, Parser(), boto_session=boto3.Session(region_name=region)).translate(
            sam_template=document, parameter_values={**defaults, **parameters}
        )
    except InvalidDocumentException as error:
        causes = "; ".join(cause.message for cause in error.causes)
        raise SandboxError(f"translate {template}: {causes}") from error
    return translated


def deploy(cloud: Cloud, template: Mapping[str, Any], stack: str, parameters: Mapping[str, str]) -> Deployment:
    """Make a translated template's resources.

    Raises:
        SandboxError: CloudFormation refuses the template, a parameter or a resource.
    """
    return _deployed(cloud, "create_stack", template, stack, parameters)


def update(cloud: Cloud, template: Mapping[str, Any], stack: str, parameters: Mapping[str, str]) -> Deployment:
    """Make of a deployed stack what a translated template says.

    Raises:
        SandboxError: CloudFormation refuses the template, a parameter or a resource.
    """
    return _deployed(cloud, "update_stack", template, stack, parameters)


def _deployed(
    cloud: Cloud, how: str, template: Mapping[str, Any], stack: str, parameters: Mapping[str, str]
) -> Deployment:
    parameters_of.check(template.get("Parameters", {}), parameters)
    try:
        getattr(cloud.client("cloudformation"), how)(
            StackName=stack,
            TemplateBody=json.dumps(template),
            Parameters=[{"ParameterKey": name, "ParameterValue": value} for name, value in parameters.items()],
            Capabilities=["CAPABILITY_IAM", "CAPABILITY_NAMED_IAM"],
        )
        return read(cloud, template, stack)
    except ClientError as error:
        raise SandboxError(f"deploy stack {stack}: {error.response['Error'].get('Message', error)}") from error


def read(cloud: Cloud, template: Mapping[str, Any], stack: str) -> Deployment:
    """What a deployed stack consists of, as the services themselves report it."""
    cloudformation = cloud.client("cloudformation")
    (described,) = cloudformation.describe_stacks(StackName=stack)["Stacks"]
    pages = cloudformation.get_paginator("list_stack_resources").paginate(StackName=stack)
    made = [resource for page in pages for resource in page["StackResourceSummaries"]]
    functions = tuple(_functions(cloud, template, made))
    arns = {function.arn for function in functions}
    return Deployment(
        stack=stack,
        outputs={output["OutputKey"]: output["OutputValue"] for output in described.get("Outputs", [])},
        functions=functions,
        mappings=tuple(mapping for mapping in _mappings(cloud) if mapping.function_arn in arns),
        schedules=tuple(_schedules(cloud, made)),
    )


def delete(cloud: Cloud, stack: str) -> None:
    """Delete a stack; what its template retains stays."""
    cloud.client("cloudformation").delete_stack(StackName=stack)


def with_environment(deployment: Deployment, variables: Mapping[str, str]) -> Deployment:
    """The deployment with variables added to the environment of every function."""
    functions = tuple(
        replace(function, environment={**function.environment, **variables}) for function in deployment.functions
    )
    return replace(deployment, functions=functions)


def _replace_code(document: dict[str, Any], root: Path) -> None:
    """Let every local directory of code be the address of an object, which is what the translator accepts."""
    for name, resource in document.get("Resources", {}).items():
        place = _CODE.get(resource["Type"])
        uri = resource["Properties"].get(place) if place else None
        if isinstance(uri, str) and "://" not in uri:
            path = (root / uri).resolve()
            if not path.is_dir():
                raise SandboxError(f"deploy {name}: {place} {uri} is not a directory of {root}")
            resource["Properties"][place] = _PLACEHOLDER + quote(str(path), safe="")


def _code(template: Mapping[str, Any], logical_id: str, place: str) -> Path:
    return Path(unquote(template["Resources"][logical_id]["Properties"][place]["S3Key"]))


def _functions(
    cloud: Cloud, template: Mapping[str, Any], made: list[dict[str, Any]]
) -> Iterator[FunctionConfiguration]:
    client = cloud.client("lambda")
    layers = {
        resource["PhysicalResourceId"]: _code(template, resource["LogicalResourceId"], "Content")
        for resource in made
        if resource["ResourceType"] == "AWS::Lambda::LayerVersion"
    }
    for resource in made:
        if resource["ResourceType"] != "AWS::Lambda::Function":
            continue
        found = client.get_function_configuration(FunctionName=resource["PhysicalResourceId"])
        variables = found.get("Environment", {}).get("Variables", {})
        yield FunctionConfiguration(
            name=found["FunctionName"],
            arn=found["FunctionArn"],
            handler=found["Handler"],
            code=_code(template, resource["LogicalResourceId"], "Code"),
            layers=tuple(layers[layer["Arn"]] for layer in found.get("Layers", [])),
            role=found["Role"],
            environment={
                **cloud.environment,
                **cloud.credentials(found["Role"]),
                **{name: str(value) for name, value in variables.items()},
            },
            timeout=int(found["Timeout"]),
            memory=int(found["MemorySize"]),
        )


def _mappings(cloud: Cloud) -> Iterator[MappingConfiguration]:
    for page in cloud.client("lambda").get_paginator("list_event_source_mappings").paginate():
        for mapping in page["EventSourceMappings"]:
            if mapping["State"] != "Enabled":
                continue
            concurrency = mapping.get("ScalingConfig", {}).get("MaximumConcurrency")
            yield MappingConfiguration(
                uuid=mapping["UUID"],
                queue_arn=mapping["EventSourceArn"],
                function_arn=mapping["FunctionArn"],
                batch_size=int(mapping["BatchSize"]),
                maximum_concurrency=None if concurrency is None else int(concurrency),
                reports_failures="ReportBatchItemFailures" in mapping.get("FunctionResponseTypes", []),
            )


def _schedules(cloud: Cloud, made: list[dict[str, Any]]) -> Iterator[ScheduleConfiguration]:
    for resource in made:
        if resource["ResourceType"] != "AWS::Scheduler::Schedule":
            continue
        name = resource["PhysicalResourceId"]
        found = cloud.client("scheduler").get_schedule(Name=name)
        if found["State"] != "ENABLED":
            continue
        target = found["Target"]
        retrying = _event_invoke_config(cloud, target["Arn"])
        on_failure = retrying.get("DestinationConfig", {}).get("OnFailure", {}).get("Destination")
        yield ScheduleConfiguration(
            arn=found["Arn"],
            expression=found["ScheduleExpression"],
            timezone=found["ScheduleExpressionTimezone"],
            target_arn=target["Arn"],
            role=target["RoleArn"],
            input=target.get("Input", "{}"),
            maximum_age=int(target["RetryPolicy"].get("MaximumEventAgeInSeconds", 86400)),
            retries=int(retrying.get("MaximumRetryAttempts", _RETRIES)),
            event_age=int(retrying.get("MaximumEventAgeInSeconds", _EVENT_AGE)),
            on_failure=_standard_queue(on_failure, f"the on-failure destination of {target['Arn']}"),
            dead_letters=_standard_queue(target.get("DeadLetterConfig", {}).get("Arn"), f"the dead letters of {name}"),
        )


def _event_invoke_config(cloud: Cloud, function_arn: str) -> dict[str, Any]:
    """What Lambda does with an asynchronous invocation that fails; empty if the function does not say."""
    try:
        found: dict[str, Any] = cloud.client("lambda").get_function_event_invoke_config(
            FunctionName=function_arn, Qualifier="$LATEST"
        )
    except ClientError as error:
        if error.response["Error"]["Code"] != "ResourceNotFoundException":
            raise
        return {}
    return found


def _standard_queue(arn: str | None, what: str) -> str | None:
    """The queue, if there is one. Raises SandboxError if it is none that Lambda and EventBridge Scheduler send to."""
    if arn is not None and (arn.split(":")[2] != "sqs" or arn.endswith(".fifo")):
        raise SandboxError(f"read {what}: {arn} is not a standard queue, and the sandbox sends to no other")
    return arn
