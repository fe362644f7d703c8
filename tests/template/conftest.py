"""The template as CloudFormation gets it: translated, with its conditions decided, in several variants."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from samtranslator.yaml_helper import yaml_parse

from tidelog_sandbox.deployment import translate

ROOT = Path(__file__).parents[2]
PUBLIC = {
    "DatabaseSecretArn": "arn:aws:secretsmanager:eu-west-2:123456789012:secret:database-AbCdEf",
    "AdminEmail": "admin@example.org",
}
USER = "arn:aws:rds-db:eu-west-2:123456789012:dbuser:db-ABCDEFGHIJKL/tidelog"
PRIVATE = {**PUBLIC, "SubnetIds": "subnet-1,subnet-2", "SecurityGroupIds": "sg-1"}
KEY = "arn:aws:kms:eu-west-2:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab"
FORMER = "arn:aws:kms:eu-west-2:123456789012:key/0987dcba-12ab-34cd-56ef-0987654321ff"
VARIANTS = {
    "public database": PUBLIC,
    "in a VPC, with a key of one's own": {**PRIVATE, "EncryptionKey": KEY, "FormerKeys": FORMER},
    "in a VPC without ways out, with a new key": {
        **PRIVATE,
        "DatabaseIamUser": USER,
        "EndpointsVpcId": "vpc-1a",
        "RouteTableIds": "rtb-1,rtb-2",
        "EncryptionKey": "new",
    },
}
NO_VALUE = {"Ref": "AWS::NoValue"}


def holds(condition: Any, conditions: Mapping[str, Any], values: Mapping[str, str]) -> bool:
    """Evaluate a condition of the template or of its rules."""
    match condition:
        case {"Condition": name}:
            return holds(conditions[name], conditions, values)
        case {"Fn::Not": [other]}:
            return not holds(other, conditions, values)
        case {"Fn::And": others}:
            return all(holds(other, conditions, values) for other in others)
        case {"Fn::Equals": [one, other]}:
            return value_of(one, values) == value_of(other, values)
        case {"Fn::EachMemberEquals": [{"Ref": name}, member]}:
            return all(each == member for each in values[name].split(","))
    raise AssertionError(condition)


def value_of(node: Any, values: Mapping[str, str]) -> str:
    """Evaluate what a condition compares; a list of ids is one text."""
    match node:
        case {"Ref": name}:
            return values[name]
        case {"Fn::Join": ["", inner]}:
            return value_of(inner, values)
        case str():
            return node
    raise AssertionError(node)


def decided(node: Any, truths: Mapping[str, bool]) -> Any:
    """Return a part of the template with Fn::If decided, and without what has a condition that is false."""
    match node:
        case {"Fn::If": [condition, yes, no]}:
            return decided(yes if truths[condition] else no, truths)
        case dict():
            items = {
                key: decided(value, truths)
                for key, value in node.items()
                if not (isinstance(value, dict) and isinstance(value.get("Condition"), str))
                or truths[value["Condition"]]
            }
            return {key: value for key, value in items.items() if value != NO_VALUE}
        case list():
            return [value for item in node if (value := decided(item, truths)) != NO_VALUE]
    return node


@pytest.fixture(scope="module", params=list(VARIANTS.values()), ids=list(VARIANTS))
def parameters(request: pytest.FixtureRequest) -> dict[str, str]:
    """What is deployed with: each condition of the template is met by some, and not by others."""
    given: dict[str, str] = request.param
    return given


@pytest.fixture(scope="module")
def truths(parameters: dict[str, str]) -> dict[str, bool]:
    """Which conditions are met."""
    return truths_of(parameters)


def truths_of(parameters: Mapping[str, str]) -> dict[str, bool]:
    """Return which conditions are met with some parameters."""
    written, values = written_with(parameters)
    return {name: holds(condition, written["Conditions"], values) for name, condition in written["Conditions"].items()}


def refusals_of(parameters: Mapping[str, str]) -> list[str]:
    """Return what the template's rules say of some parameters; nothing if they may be deployed."""
    written, values = written_with(parameters)
    return [
        assertion["AssertDescription"]
        for rule in written["Rules"].values()
        if holds(rule["RuleCondition"], {}, values)
        for assertion in rule["Assertions"]
        if not holds(assertion["Assert"], {}, values)
    ]


def written_with(parameters: Mapping[str, str]) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the template as it is written, and the value of each parameter."""
    written: dict[str, Any] = yaml_parse((ROOT / "template.yaml").read_text(encoding="utf-8"))
    defaults = {name: str(slot.get("Default", "")) for name, slot in written["Parameters"].items()}
    return written, defaults | dict(parameters)


@pytest.fixture(scope="module")
def template(parameters: dict[str, str], truths: dict[str, bool]) -> dict[str, Any]:
    """The template as CloudFormation makes it."""
    translated = translate(ROOT / "template.yaml", parameters, "eu-west-2")
    result: dict[str, Any] = {**decided(translated, truths), "Conditions": {}}
    return result


@pytest.fixture(scope="module")
def resources(template: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The properties of each resource."""
    return {name: resource.get("Properties", {}) for name, resource in template["Resources"].items()}


@pytest.fixture(scope="module")
def of_type(template: dict[str, Any]) -> Callable[[str], dict[str, Any]]:
    """Find the properties of the resources of a type."""

    def find(kind: str) -> dict[str, Any]:
        found = template["Resources"].items()
        return {name: resource["Properties"] for name, resource in found if resource["Type"] == f"AWS::{kind}"}

    return find


Find = Callable[[str], dict[str, Any]]


def statements(role: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield what a role allows, with actions and resources as lists."""
    for policy in role["Policies"]:
        for statement in policy["PolicyDocument"]["Statement"]:
            as_lists = {key: value if isinstance(value, list) else [value] for key, value in statement.items()}
            yield {**statement, "Action": as_lists["Action"], "Resource": as_lists["Resource"]}
