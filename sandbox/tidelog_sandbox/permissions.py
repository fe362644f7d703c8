"""IAM: whoever comes with the credentials of a role is held to the role's policies; the sandbox's own are not.

moto can enforce policies, but for all requests from a certain one on. It would check the operator's too, asks for
actions that IAM does not have (a batch is allowed by the single call's), compares for several services a statement's
resource with nothing but ``*``, stores the inline policies of CloudFormation's roles in a form that it cannot evaluate,
leaves out their managed policies, knows CloudWatch by the name that signs its requests, and tells everybody whether an
object is there. Conditions it ignores; of those one is enforced here: that objects are only created where there are
none. Signatures are not checked: requests come from this machine.
"""

import fnmatch
import json
import re
import threading
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

from moto.awslambda.responses import LambdaResponse
from moto.core.authorization import ActionAuthenticatorMixin
from moto.core.responses import BaseResponse
from moto.iam import models as iam
from moto.iam.access_control import AssumedRoleAccessKey, IAMRequestBase, S3IAMRequest
from moto.logs.responses import LogsResponse
from moto.s3.exceptions import MissingKey
from moto.s3.responses import S3Response
from moto.secretsmanager.models import secretsmanager_backends
from moto.secretsmanager.responses import SecretsManagerResponse
from moto.sns.responses import SNSResponse
from moto.ssm.responses import SimpleSystemManagerResponse

from tidelog_sandbox.mending import add, mend

_ACTIONS = {
    "lambda:Invoke": "lambda:InvokeFunction",
    "s3:HeadBucket": "s3:ListBucket",
    "sqs:ChangeMessageVisibilityBatch": "sqs:ChangeMessageVisibility",
    "sqs:DeleteMessageBatch": "sqs:DeleteMessage",
    "sqs:SendMessageBatch": "sqs:SendMessage",
}
"""What IAM calls an action where it has not the operation's name."""
_CREATED_WITHOUT_CONDITION = {
    "Null": {"s3:if-none-match": "true"},
    "Bool": {"s3:ObjectCreationOperation": "true"},
}
_WRITTEN_ONCE: list[re.Pattern[str]] = []
"""What the ARNs of objects look like that may not be overwritten."""


class Call(NamedTuple):
    """What a role has asked for."""

    role: str
    """The role's name."""
    action: str
    """As in a policy."""
    resource: str
    """Its ARN."""
    overwrites: bool
    """Whether it makes an object without ``If-None-Match: *``."""


class Calls:
    """The calls of roles, each once, from when they are asked for."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seen: set[Call] | None = None

    def note(self, call: Call) -> None:
        """Remember a call, if anybody wants to know."""
        with self._lock:
            if self._seen is not None:
                self._seen.add(call)

    def taken(self) -> list[Call]:
        """Those since they were last taken; remembering begins with the first time."""
        with self._lock:
            seen, self._seen = self._seen or set(), set()
        return sorted(seen)


CALLS = Calls()


def install() -> None:
    """Hold roles to their policies."""
    mend(ActionAuthenticatorMixin, "_authenticate_and_authorize_action", _authorize)
    add(SimpleSystemManagerResponse, "_determine_resource", _parameter_arns)
    add(SNSResponse, "_determine_resource", _topic_arn)
    add(SecretsManagerResponse, "_determine_resource", _secret_arn)
    add(LogsResponse, "_determine_resource", _log_group_arn)
    add(LambdaResponse, "_determine_resource", _function_arn)
    _mend_roles()
    _mend_actions()
    _hide_objects_from_who_may_not_list()


def _authorize(response: BaseResponse, request_class: type[IAMRequestBase], resource: str | Sequence[str]) -> None:
    """Let a call pass, or raise the service's own refusal. Each of its resources has to be allowed."""
    if "X-Amz-Security-Token" not in response.headers:
        return
    request = request_class(
        account_id=response.current_account,
        method=response.method,
        path=response.raw_path,
        data=response.data,
        body=response.raw_body,
        headers=response.headers,
        action=response._get_action(),  # noqa: SLF001  # moto's own
    )
    role = request._access_key._owner_role_name if isinstance(request._access_key, AssumedRoleAccessKey) else ""  # noqa: SLF001  # moto's own
    overwrites = request._action == "s3:PutObject" and _may_overwrite(response)  # noqa: SLF001  # moto's own
    for each in [resource] if isinstance(resource, str) else resource:
        CALLS.note(Call(role, request._action, each, overwrites))  # noqa: SLF001  # moto's own
        request.check_action_permitted(each)
        if overwrites and any(arns.match(each) for arns in _WRITTEN_ONCE):
            request._raise_access_denied()  # noqa: SLF001  # moto's own


def demand_conditions(policy: Mapping[str, Any]) -> None:
    """Take from a bucket's policy which objects may only be created, on the condition that there are none.

    https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-writes-enforce.html
    """
    for statement in policy["Statement"]:
        if statement["Effect"] == "Deny" and statement.get("Condition") == _CREATED_WITHOUT_CONDITION:
            arns = statement["Resource"] if isinstance(statement["Resource"], list) else [statement["Resource"]]
            _WRITTEN_ONCE.extend(re.compile(fnmatch.translate(arn)) for arn in arns)


def _may_overwrite(response: BaseResponse) -> bool:
    """Whether a request makes an object, be there one or not. The parts of an upload make none."""
    query = parse_qs(urlsplit(response.uri).query, keep_blank_values=True)
    return not {"uploads", "partNumber"} & query.keys() and response.headers.get("If-None-Match") != "*"


def _body(response: BaseResponse) -> dict[str, Any]:
    try:
        body = json.loads(response.raw_body or b"{}")
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}


def _parameter_arns(response: BaseResponse) -> list[str]:
    body = _body(response)
    names = [body.get("Name") or body.get("Path"), *body.get("Names", [])]
    begin = f"arn:aws:ssm:{response.region}:{response.current_account}:parameter/"
    return [begin + name.split(":")[0].strip("/") for name in names if name] or ["*"]


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


def _log_group_arn(response: BaseResponse) -> str:
    body = _body(response)
    name = body.get("logGroupName")
    if not name:
        return "*"
    arn = f"arn:aws:logs:{response.region}:{response.current_account}:log-group:{name}"
    return f"{arn}:log-stream:{body.get('logStreamName', '')}"


def _function_arn(response: BaseResponse) -> str:
    _, found, rest = unquote(response.path).partition("/functions/")
    name = rest.split("/")[0]
    if not found or not name:
        return "*"
    if name.startswith("arn:"):
        return name
    return f"arn:aws:lambda:{response.region}:{response.current_account}:function:{name}"


def _mend_roles() -> None:
    def put_text(role: iam.Role, name: str, policy: Any) -> None:
        if not isinstance(policy, str):
            statements = [each for each in policy["Statement"] if each]  # without those that are AWS::NoValue
            policy = json.dumps({"Version": "2012-10-17", **policy, "Statement": statements})
        put_policy(role, name, policy)

    def create_with_policies(name: str, document: Any, account_id: str, region_name: str, **kwargs: Any) -> iam.Role:
        role: iam.Role = create(name, document, account_id, region_name, **kwargs)
        for arn in document["Properties"].get("ManagedPolicyArns", []):
            iam.iam_backends[account_id]["aws"].attach_role_policy(arn, role.name)
        return role

    put_policy = mend(iam.Role, "put_policy", put_text)
    create = mend(iam.Role, "create_from_cloudformation_json", staticmethod(create_with_policies))


def _mend_actions() -> None:
    def initialize_by_action(request: Any, *args: Any, **kwargs: Any) -> None:
        initialize(request, *args, **kwargs)
        if request._service == "monitoring":  # noqa: SLF001  # what the signature says
            request._action = "cloudwatch:" + request._action.split(":", 1)[1]  # noqa: SLF001  # the same
        request._action = _ACTIONS.get(request._action, request._action)  # noqa: SLF001  # the same

    initialize = mend(IAMRequestBase, "__init__", initialize_by_action)


def _hide_objects_from_who_may_not_list() -> None:
    """Who may read an object that is not there, but not list its bucket, is refused, as by S3: it may be there."""

    def get(response: S3Response, *args: Any, **kwargs: Any) -> Any:
        try:
            return find(response, *args, **kwargs)
        except MissingKey:
            _may_list(response)
            raise

    def head(response: S3Response, *args: Any, **kwargs: Any) -> Any:
        answer = look_up(response, *args, **kwargs)
        if answer[0] == 404:
            _may_list(response)
        return answer

    find = mend(S3Response, "_key_response_get", get)
    look_up = mend(S3Response, "head_object", head)


def _may_list(response: S3Response) -> None:
    response.data["Action"] = "ListBucket"
    _authorize(response, S3IAMRequest, f"arn:aws:s3:::{response.bucket_name}")
