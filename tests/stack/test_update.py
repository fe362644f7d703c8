"""An update from the release before: tests/template/previous.yaml, which each release replaces by its own template."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from cfnlint.schema.manager import PROVIDER_SCHEMA_MANAGER

from tests.chaos.plan import ROOT
from tests.stack.office import PARAMETERS, Office
from tests.tide import Database
from tidelog_sandbox.deployment import translate
from tidelog_sandbox.sandbox import Sandbox

REGION = "eu-west-2"
VARIABLE = "        TIDELOG_DATABASE_TLS: !Ref DatabaseTls\n"
NEWER = "        TIDELOG_DATABASE_AUTHENTICATION: password\n"
KEPT = ("Lake", "WorkQueue", "BackfillQueue", "DeadLetters", "MissedTicks", "Administrators", "WorkerFunction")
BODY = '{"version":1,"type":"ingest","table":"public.t"}'


@pytest.fixture
def previous(tmp_path: Path) -> Path:
    """The template of the release before, beside the code of this one, which is given what only this one reads."""
    for folder in ("functions", "shared"):
        (tmp_path / folder).symlink_to(ROOT / folder)
    template = tmp_path / "template.yaml"
    text = (ROOT / "tests/template/previous.yaml").read_text(encoding="utf-8")
    assert text.count(VARIABLE) == 1
    template.write_text(text.replace(VARIABLE, VARIABLE + NEWER), encoding="utf-8")
    return template


def created_only(kind: str) -> set[str]:
    """Return the properties of a type that CloudFormation changes by making the resource anew."""
    schema = PROVIDER_SCHEMA_MANAGER.get_resource_schema(REGION, kind).schema
    return {pointer.split("/")[2] for pointer in schema.get("createOnlyProperties", [])}


def test_nothing_is_made_anew_but_the_layers_version(previous: Path) -> None:
    """By CloudFormation's own schemas: whatever stays has its type and all that can't be changed in place."""
    given = {**PARAMETERS, "DatabaseSecretArn": "arn:aws:secretsmanager:eu-west-2:123456789012:secret:a-AbCdEf"}
    before, after = (translate(template, given, REGION)["Resources"] for template in (previous, ROOT / "template.yaml"))
    stay = {name for name in before if not before[name]["Type"].endswith("LayerVersion")}
    assert stay <= set(after)
    for name in stay:
        kind = before[name]["Type"]
        assert after[name]["Type"] == kind
        old, new = (resources[name].get("Properties", {}) for resources in (before, after))
        changed = {each for each in created_only(kind) if old.get(each) != new.get(each)}
        assert not changed, name
    assert created_only("AWS::SQS::Queue") >= {"QueueName", "FifoQueue"}


def test_bucket_queues_and_state_outlive_an_update(previous: Path, database: Database) -> None:
    """With a message under way, and with a customer key and endpoints added at once: work goes on where it was."""
    database.run("CREATE TABLE t (id int)", "INSERT INTO t VALUES (1)")
    to = database.server.credentials(database.name)
    content = {name: getattr(to, name) for name in to.__struct_fields__} | {"engine": "postgres"}
    with Sandbox(previous, parameters=PARAMETERS, database=content) as sandbox:
        office = Office(sandbox, database)
        sandbox.start_mappings()
        office.tick()
        sandbox.stop_mappings()
        database.run("INSERT INTO t VALUES (2)")
        office.send(BODY)
        names, state, keys = made(sandbox), office.tide.state("public.t"), office.tide.lake.keys("")
        sandbox.update(ROOT / "template.yaml", **network(sandbox), EncryptionKey="new")
        assert {name: made(sandbox)[name] for name in KEPT} == {name: names[name] for name in KEPT}
        assert (office.tide.state("public.t"), office.tide.lake.keys("")) == (state, keys)
        assert office.waiting() == 1
        sandbox.start_mappings()
        office.settle()
        assert office.tide.values("id", "public.t") == [1, 2]
        assert json.loads(office.tidelog("status", "--json"))["tables"]
        check_key_and_endpoints(sandbox)


def made(sandbox: Sandbox) -> Mapping[str, str]:
    """Return what the stack consists of: logical to physical ids."""
    found = sandbox.client("cloudformation").list_stack_resources(StackName="tidelog")["StackResourceSummaries"]
    return {each["LogicalResourceId"]: each["PhysicalResourceId"] for each in found}


def network(sandbox: Sandbox) -> dict[str, str]:
    """Make a VPC; return the parameters that name what is in it."""
    ec2 = sandbox.client("ec2")
    vpc = ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
    return {
        "EndpointsVpcId": vpc,
        "SubnetIds": ec2.create_subnet(VpcId=vpc, CidrBlock="10.0.1.0/24")["Subnet"]["SubnetId"],
        "SecurityGroupIds": ec2.create_security_group(GroupName="f", Description="f", VpcId=vpc)["GroupId"],
        "RouteTableIds": ec2.create_route_table(VpcId=vpc)["RouteTable"]["RouteTableId"],
    }


def check_key_and_endpoints(sandbox: Sandbox) -> None:
    """All is encrypted with the new key, and each service has its endpoint."""
    names, key = made(sandbox), sandbox.outputs["EncryptionKeyArn"]
    [rule] = sandbox.client("s3").get_bucket_encryption(Bucket=names["Lake"])["ServerSideEncryptionConfiguration"][
        "Rules"
    ]
    assert rule["ApplyServerSideEncryptionByDefault"] == {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": key}
    for queue in ("WorkQueue", "BackfillQueue", "DeadLetters", "MissedTicks"):
        found = sandbox.client("sqs").get_queue_attributes(QueueUrl=names[queue], AttributeNames=["All"])["Attributes"]
        assert found["KmsMasterKeyId"] == key
    endpoints: list[dict[str, Any]] = sandbox.client("ec2").describe_vpc_endpoints()["VpcEndpoints"]
    services = {each["ServiceName"].rpartition(".")[2] for each in endpoints}
    assert services == {"s3", "sqs", "ssm", "secretsmanager", "sns"}
