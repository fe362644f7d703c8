"""Who may do what with what the template makes, and how it is encrypted. tests/stack/test_roles.py has it at work."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from samtranslator.yaml_helper import yaml_parse

from tests.template.conftest import FORMER, KEY, ROOT, USER, Find, statements
from tidelog.memory import KEY as MEMORY

SECURITY = (ROOT / "docs/security.md").read_text(encoding="utf-8")

# What Lambda asks of a role to attach its function to a VPC: AWSLambdaVPCAccessExecutionRole, but for the logs.
INTERFACES = {
    "ec2:AssignPrivateIpAddresses",
    "ec2:CreateNetworkInterface",
    "ec2:DeleteNetworkInterface",
    "ec2:DescribeNetworkInterfaces",
    "ec2:DescribeSubnets",
    "ec2:UnassignPrivateIpAddresses",
}
OF_THIS_STACK = "arn:${AWS::Partition}:lambda:${AWS::Region}:${AWS::AccountId}:function:${AWS::StackName}-*"
OF_THIS_ACCOUNT = {
    "Sid": "OnlyThisAccount",
    "Effect": "Allow",
    "Principal": "*",
    "Action": "*",
    "Resource": "*",
    "Condition": {"StringEquals": {"aws:PrincipalAccount": {"Ref": "AWS::AccountId"}}},
}
ALL_CALLS = {"S3::Bucket": "s3:*", "SQS::Queue": "sqs:*", "SNS::Topic": "sns:Publish"}
"""By TLS alone. Of a topic it is the one call that a policy may refuse to others and that carries anything."""


def test_roles_are_the_templates_own_and_allow_no_more_than_they_name(of_type: Find, truths: dict[str, bool]) -> None:
    """No managed policies, no wildcard of actions; any resource only for the network interfaces of the VPC.

    Lambda asks for these everywhere, and they are denied to the functions' own code.
    """
    roles = of_type("IAM::Role")

    assert set(roles) == {"ScheduleRole", "SchedulerRole", "WorkerRole"}
    for name, role in roles.items():
        assert "ManagedPolicyArns" not in role
        attached = truths["InVpc"] and name != "ScheduleRole"
        everywhere = {each["Sid"]: each for each in statements(role) if "*" in each["Resource"]}
        assert list(everywhere) == (["AttachToVpc", "OnlyLambdaAttaches"] if attached else [])
        for statement in statements(role):
            assert not [action for action in statement["Action"] if "*" in action]
            assert statement["Effect"] == ("Deny" if statement["Sid"] == "OnlyLambdaAttaches" else "Allow")
            conditional = statement["Sid"] in ("OnlyLambdaAttaches", "UseKey", "UseFormerKeys")
            assert ("Condition" in statement) == conditional  # the sandbox enforces none
        if attached:
            assert set(everywhere["AttachToVpc"]["Action"]) == INTERFACES
            assert set(everywhere["OnlyLambdaAttaches"]["Action"]) == INTERFACES
            assert everywhere["OnlyLambdaAttaches"]["Condition"] == {
                "ArnLike": {"lambda:SourceFunctionArn": {"Fn::Sub": OF_THIS_STACK}}
            }


@pytest.mark.parametrize("role", ["SchedulerRole", "WorkerRole"])
def test_both_functions_connect_as_one_user_of_the_database_where_iam_knows_it(
    role: str, resources: dict[str, Any], parameters: dict[str, str]
) -> None:
    """The one that is named, and as nobody where a password is used; the functions are told which."""
    found = [each for each in statements(resources[role]) if each["Action"] == ["rds-db:connect"]]
    assert [each["Resource"] for each in found] == [[{"Ref": "DatabaseIamUser"}]] * ("DatabaseIamUser" in parameters)
    variables = resources[role.replace("Role", "Function")]["Environment"]["Variables"]
    assert variables["TIDELOG_DATABASE_AUTHENTICATION"] == ("iam" if found else "password")


def test_only_the_services_may_take_the_roles(of_type: Find) -> None:
    """EventBridge Scheduler's is for the schedules of this account; Lambda has no such condition."""
    trusted = {name: role["AssumeRolePolicyDocument"]["Statement"] for name, role in of_type("IAM::Role").items()}
    for name, [statement] in trusted.items():
        service = "scheduler" if name == "ScheduleRole" else "lambda"
        assert (statement["Effect"], statement["Principal"], statement["Action"]) == (
            "Allow",
            {"Service": f"{service}.amazonaws.com"},
            "sts:AssumeRole",
        )
    assert trusted["ScheduleRole"][0]["Condition"] == {"StringEquals": {"aws:SourceAccount": {"Ref": "AWS::AccountId"}}}


def test_what_is_not_sent_by_tls_is_refused(resources: dict[str, Any], of_type: Find) -> None:
    """By bucket, queues and topic, for everybody."""
    policies = {kind: of_type(f"{kind}Policy") for kind in ("S3::Bucket", "SQS::Queue", "SNS::Topic")}
    for kind, policy in [(kind, policy) for kind, found in policies.items() for policy in found.values()]:
        [denied] = [each for each in policy["PolicyDocument"]["Statement"] if each["Sid"] == "OnlyByTls"]
        assert (denied["Effect"], denied["Principal"], denied["Action"]) == ("Deny", "*", ALL_CALLS[kind])
        assert denied["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}
        assert not [
            each for each in policy["PolicyDocument"]["Statement"] if each["Effect"] == "Allow" and kind != "SNS::Topic"
        ]
    [topic] = policies["SNS::Topic"].values()
    assert topic["Topics"] == [{"Ref": "Administrators"}]
    assert [each["Resource"] for each in topic["PolicyDocument"]["Statement"]] == [{"Ref": "Administrators"}] * 2
    queues = {name for policy in policies["SQS::Queue"].values() for name in denied_queues(policy)}
    assert queues == set(of_type("SQS::Queue"))
    [lake] = policies["S3::Bucket"].values()
    assert lake["Bucket"] == {"Ref": "Lake"}
    assert lake["PolicyDocument"]["Statement"][0]["Resource"] == [
        {"Fn::GetAtt": ["Lake", "Arn"]},
        {"Fn::Sub": "${Lake.Arn}/*"},
    ]


def denied_queues(policy: dict[str, Any]) -> list[str]:
    """Return the queue of a policy, which is the resource too."""
    [queue], [statement] = policy["Queues"], policy["PolicyDocument"]["Statement"]
    assert statement["Resource"] == {"Fn::GetAtt": [queue["Ref"], "Arn"]}
    return [queue["Ref"]]


def test_data_ledger_and_schema_are_created_and_never_overwritten(resources: dict[str, Any]) -> None:
    """As the user guide of S3 has it, which exempts the parts of an upload; failures and ticks are written over."""
    [statement] = [
        each for each in resources["LakePolicy"]["PolicyDocument"]["Statement"] if each["Sid"] == "CreateNeverOverwrite"
    ]
    assert (statement["Effect"], statement["Principal"], statement["Action"]) == ("Deny", "*", "s3:PutObject")
    assert statement["Condition"] == {
        "Null": {"s3:if-none-match": "true"},
        "Bool": {"s3:ObjectCreationOperation": "true"},
    }
    folders = {resource["Fn::Sub"] for resource in statement["Resource"]}
    assert folders == {f"${{Lake.Arn}}/{folder}/*" for folder in ("data", "ledger", "schema")}
    written = {
        resource["Fn::Sub"]
        for role in ("SchedulerRole", "WorkerRole")
        for each in statements(resources[role])
        if "s3:PutObject" in each["Action"]
        for resource in each["Resource"]
    }
    assert written - folders == {"${Lake.Arn}/failures/*", f"${{Lake.Arn}}/{MEMORY}"}


def test_only_alarms_of_this_stack_may_tell_the_topic(resources: dict[str, Any], of_type: Find) -> None:
    """Beside the roles, which say so themselves: the topic's policy is in place of SNS's own."""
    [allowed] = [
        each for each in resources["AdministratorsPolicy"]["PolicyDocument"]["Statement"] if each["Effect"] == "Allow"
    ]
    assert (allowed["Principal"], allowed["Action"]) == ({"Service": "cloudwatch.amazonaws.com"}, "sns:Publish")
    assert allowed["Condition"]["StringEquals"] == {"aws:SourceAccount": {"Ref": "AWS::AccountId"}}
    source = allowed["Condition"]["ArnLike"]["aws:SourceArn"]["Fn::Sub"]
    begin = source.rpartition(":alarm:")[2].removesuffix("*")
    assert all(alarm["AlarmName"]["Fn::Sub"].startswith(begin) for alarm in of_type("CloudWatch::Alarm").values())


def test_all_that_is_kept_is_encrypted(resources: dict[str, Any], of_type: Find, parameters: dict[str, str]) -> None:
    """With AWS's keys, or all with the customer's. The topic has none of AWS's: CloudWatch could not use it."""
    key = {"new": {"Fn::GetAtt": ["Key", "Arn"]}, KEY: {"Ref": "EncryptionKey"}}.get(
        parameters.get("EncryptionKey", "")
    )
    for queue in of_type("SQS::Queue").values():
        assert (queue.get("KmsMasterKeyId"), queue.get("SqsManagedSseEnabled")) == (key, None if key else True)
    assert resources["Administrators"].get("KmsMasterKeyId") == key
    assert [group.get("KmsKeyId") for group in of_type("Logs::LogGroup").values()] == [key] * 2
    [rule] = resources["Lake"]["BucketEncryption"]["ServerSideEncryptionConfiguration"]
    assert rule["ServerSideEncryptionByDefault"] == (
        {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": key} if key else {"SSEAlgorithm": "AES256"}
    )
    assert rule.get("BucketKeyEnabled") == (True if key else None)
    services = [{"Fn::Sub": f"{service}.${{AWS::Region}}.${{AWS::URLSuffix}}"} for service in ("s3", "sqs", "sns")]
    for name, role in of_type("IAM::Role").items():
        using = {each["Sid"]: each for each in statements(role) if "Key" in each["Sid"]}
        wanted = {"UseKey": (["kms:GenerateDataKey", "kms:Decrypt"], [key])} if key else {}
        if "FormerKeys" in parameters and name != "ScheduleRole":
            wanted["UseFormerKeys"] = (["kms:Decrypt"], [{"Ref": "FormerKeys"}])
        assert {sid: (each["Action"], each["Resource"]) for sid, each in using.items()} == wanted, name
        for statement in using.values():
            assert statement["Condition"] == {"StringEquals": {"kms:ViaService": services}}


def test_a_new_key_is_kept_turned_and_open_to_alarms_and_logs(
    template: dict[str, Any], truths: dict[str, bool]
) -> None:
    """The lake could not be read without it. docs/security.md has the same policy, for a key of one's own."""
    assert ("Key" in template["Resources"]) == truths["MakesKey"]
    if not truths["MakesKey"]:
        return
    key = template["Resources"]["Key"]
    assert key["DeletionPolicy"] == key["UpdateReplacePolicy"] == "Retain"
    assert key["Properties"]["EnableKeyRotation"] is True
    services = [each["Principal"].get("Service") for each in key["Properties"]["KeyPolicy"]["Statement"]]
    assert services == [None, "cloudwatch.amazonaws.com", {"Fn::Sub": "logs.${AWS::Region}.${AWS::URLSuffix}"}]
    text = json.dumps(key["Properties"]["KeyPolicy"])
    for name, value in {
        "Partition": "aws",
        "Region": "eu-west-2",
        "AccountId": "123456789012",
        "URLSuffix": "amazonaws.com",
    }.items():
        text = text.replace(f'{{"Ref": "AWS::{name}"}}', f'"{value}"').replace(f"${{AWS::{name}}}", value)
    substituted = json.loads(text, object_hook=lambda node: node.get("Fn::Sub", node))
    documented = re.findall(r"```json\n(.*?)```", SECURITY, re.DOTALL)
    assert substituted in [json.loads(block) for block in documented]


def test_the_documents_list_every_statement_of_every_role() -> None:
    """With what it is for; in the order of the template."""
    template = yaml_parse((ROOT / "template.yaml").read_text(encoding="utf-8"))
    sections = re.findall(r"^### `(\w+Role)`.*?\n(.*?)(?=^##)", SECURITY, re.MULTILINE | re.DOTALL)
    listed = {role: re.findall(r"^\| `(\w+)` \| .+ \|$", text, re.MULTILINE) for role, text in sections}
    given = {
        name: [
            (each["Fn::If"][1] if "Fn::If" in each else each)["Sid"]
            for policy in resource["Properties"]["Policies"]
            for each in policy["PolicyDocument"]["Statement"]
        ]
        for name, resource in template["Resources"].items()
        if resource["Type"] == "AWS::IAM::Role"
    }
    assert listed == given


def test_a_vpc_without_ways_out_gets_one_to_each_service_that_is_called(
    of_type: Find, truths: dict[str, bool], resources: dict[str, Any]
) -> None:
    """A gateway to S3, which is free, and interfaces to the others, for the functions alone."""
    endpoints = list(of_type("EC2::VPCEndpoint").values())
    reached = {each["ServiceName"]["Fn::Sub"].rpartition(".")[2]: each["VpcEndpointType"] for each in endpoints}
    called = {
        action.partition(":")[0]
        for role in ("SchedulerRole", "WorkerRole")
        for each in statements(resources[role])
        for action in each["Action"]
    } - {"logs", "ec2", "kms", "rds-db"}  # those calls are made by services in the role's name, not from the VPC
    gateway = {"s3": "Gateway"} if truths["MakesGateway"] else {}
    assert reached == (gateway | dict.fromkeys(called - {"s3"}, "Interface") if truths["MakesEndpoints"] else {})
    for endpoint in endpoints:
        assert endpoint["VpcId"] == {"Ref": "EndpointsVpcId"}
        assert endpoint["PolicyDocument"]["Statement"] == [OF_THIS_ACCOUNT]
        if endpoint["VpcEndpointType"] == "Interface":
            assert endpoint["SubnetIds"] == {"Ref": "SubnetIds"}
            assert endpoint["SecurityGroupIds"] == [{"Ref": "EndpointsSecurityGroup"}]
            assert endpoint["PrivateDnsEnabled"] is True
        else:
            assert endpoint["RouteTableIds"] == {"Ref": "RouteTableIds"}
    if truths["MakesEndpoints"]:
        assert resources["EndpointsSecurityGroup"]["VpcId"] == {"Ref": "EndpointsVpcId"}
        [way_in] = resources["EndpointsSecurityGroup"]["SecurityGroupIngress"]
        assert (way_in["IpProtocol"], way_in["FromPort"], way_in["ToPort"]) == ("tcp", 443, 443)
        assert way_in["SourceSecurityGroupId"] == {"Fn::Select": [0, {"Ref": "SecurityGroupIds"}]}


def test_what_a_role_is_given_by_parameter_is_one_resource(template: dict[str, Any]) -> None:
    """A whole ARN: with a wildcard in it a statement would be about others too, with less it would be about none."""
    texts = json.dumps([role["Properties"]["Policies"] for role in template["Resources"].values() if is_role(role)])
    given = set(re.findall(r'{"Ref": "(\w+)"}', texts)) & set(template["Parameters"])
    arns = {
        "DatabaseSecretArn": "arn:aws:secretsmanager:eu-west-2:123456789012:secret:prod/a_b+c=d.e@f-AbCd12",
        "DatabaseIamUser": USER,
        "EncryptionKey": KEY,
        "FormerKeys": FORMER,
    }
    assert given <= set(arns)
    for name, arn in arns.items():
        pattern = template["Parameters"][name]["AllowedPattern"]
        assert re.search(pattern, arn), name
        for wrong in (f"{arn}*", f"{arn[:-6]}??????", f"{arn.rpartition(':')[0]}:*"):
            assert not re.search(pattern, wrong), (name, wrong)
    short = arns["DatabaseSecretArn"][:-7]
    assert not re.search(template["Parameters"]["DatabaseSecretArn"]["AllowedPattern"], short)


def is_role(resource: dict[str, Any]) -> bool:
    """Say whether a resource is a role."""
    return bool(resource["Type"] == "AWS::IAM::Role")


def test_what_checkov_finds_is_waived_with_a_reason() -> None:
    """`make checkov` finds nothing else."""
    template = yaml_parse((ROOT / "template.yaml").read_text(encoding="utf-8"))
    waived = {
        name: {each["id"]: each["comment"] for each in resource["Metadata"]["checkov"]["skip"]}
        for name, resource in template["Resources"].items()
        if "checkov" in resource.get("Metadata", {})
    }
    of_functions = {"CKV_AWS_115", "CKV_AWS_116", "CKV_AWS_173"}
    assert {name: set(found) for name, found in waived.items()} == {
        "SchedulerFunction": of_functions,
        "WorkerFunction": of_functions,
        "Lake": {"CKV_AWS_18", "CKV_AWS_19"},
    }
    assert all(len(reason.split()) > 8 for found in waived.values() for reason in found.values())


@pytest.mark.parametrize(
    ("role", "services"),
    [
        ("ScheduleRole", {"lambda", "sqs"}),
        ("SchedulerRole", {"sqs", "sns", "s3", "ssm", "secretsmanager", "logs"}),
        ("WorkerRole", {"sqs", "sns", "s3", "ssm", "secretsmanager", "logs"}),
    ],
)
def test_a_role_reaches_only_the_services_that_its_function_calls(
    role: str, services: set[str], resources: dict[str, Any]
) -> None:
    """Beside what parameters ask for, these."""
    actions = {action for statement in statements(resources[role]) for action in statement["Action"]}

    assert {action.partition(":")[0] for action in actions} - {"ec2", "kms", "rds-db"} == services
    assert not [action for action in actions if "Delete" in action and not action.startswith(("sqs:", "ec2:"))]


def test_the_scheduler_reaches_one_object_of_the_lake(resources: dict[str, Any]) -> None:
    """What ticks leave to each other: read and written, and that alone."""
    [ticks] = [each for each in statements(resources["SchedulerRole"]) if each["Action"][0].startswith("s3:")]
    assert ticks["Action"] == ["s3:GetObject", "s3:PutObject"]
    assert ticks["Resource"] == [{"Fn::Sub": f"${{Lake.Arn}}/{MEMORY}"}]


@pytest.mark.parametrize("role", ["SchedulerRole", "WorkerRole"])
def test_both_functions_may_read_the_configuration(role: str, resources: dict[str, Any]) -> None:
    """It is a parameter of its own, which they may not write."""
    readable = [
        resource["Fn::Sub"]
        for statement in statements(resources[role])
        if "ssm:GetParameter" in statement["Action"]
        for resource in statement["Resource"]
    ]
    configuration = ":parameter/tidelog/${AWS::StackName}/configuration"
    assert [resource for resource in readable if resource.endswith(configuration)]
