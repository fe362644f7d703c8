"""IAM: which resource a request is about, and what a role made by CloudFormation may do.

moto can enforce policies, but for several services it compares a statement's resource with nothing but ``*``, it stores
the inline policies of CloudFormation's roles in a form that it cannot evaluate, leaves out their managed policies,
and knows CloudWatch by the name that signs its requests.
"""

import json
from typing import Any

from moto.core.responses import BaseResponse
from moto.iam import models as iam
from moto.iam.access_control import IAMRequestBase
from moto.secretsmanager.models import secretsmanager_backends
from moto.secretsmanager.responses import SecretsManagerResponse
from moto.sns.responses import SNSResponse
from moto.ssm.responses import SimpleSystemManagerResponse

from tidelog_sandbox.mending import add, mend


def _body(response: BaseResponse) -> dict[str, Any]:
    try:
        body = json.loads(response.raw_body or b"{}")
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}


def _parameter_arn(response: BaseResponse) -> str:
    body = _body(response)
    name = body.get("Name") or body.get("Path") or next(iter(body.get("Names") or []), None)
    if not name:
        return "*"
    return f"arn:aws:ssm:{response.region}:{response.current_account}:parameter/{name.split(':')[0].strip('/')}"


def _topic_arn(response: BaseResponse) -> str:
    for name in ("TopicArn", "TargetArn"):
        value = response.querystring.get(name) or _body(response).get(name)
        if value:
            return str(value[0] if isinstance(value, list) else value)
    return "*"


def _secret_arn(response: BaseResponse) -> str:
    name = _body(response).get("SecretId")
    if not name or name.startswith("arn:"):
        return name or "*"
    secret = secretsmanager_backends[response.current_account][response.region].secrets.get(name)
    return (
        secret.arn if secret else f"arn:aws:secretsmanager:{response.region}:{response.current_account}:secret:{name}"
    )


def install() -> None:
    """Mend moto's IAM. Whether it enforces anything is decided elsewhere."""
    add(SimpleSystemManagerResponse, "_determine_resource", _parameter_arn)
    add(SNSResponse, "_determine_resource", _topic_arn)
    add(SecretsManagerResponse, "_determine_resource", _secret_arn)
    _mend_roles()
    _mend_cloudwatch()


def _mend_roles() -> None:
    def put_text(role: iam.Role, name: str, policy: Any) -> None:
        put_policy(role, name, policy if isinstance(policy, str) else json.dumps({"Version": "2012-10-17", **policy}))

    def create_with_policies(name: str, document: Any, account_id: str, region_name: str, **kwargs: Any) -> iam.Role:
        role: iam.Role = create(name, document, account_id, region_name, **kwargs)
        for arn in document["Properties"].get("ManagedPolicyArns", []):
            iam.iam_backends[account_id]["aws"].attach_role_policy(arn, role.name)
        return role

    put_policy = mend(iam.Role, "put_policy", put_text)
    create = mend(iam.Role, "create_from_cloudformation_json", staticmethod(create_with_policies))


def _mend_cloudwatch() -> None:
    def initialize_by_action(request: Any, *args: Any, **kwargs: Any) -> None:
        initialize(request, *args, **kwargs)
        if request._service == "monitoring":  # noqa: SLF001  # what the signature says
            request._action = "cloudwatch:" + request._action.split(":", 1)[1]  # noqa: SLF001  # the same

    initialize = mend(IAMRequestBase, "__init__", initialize_by_action)
