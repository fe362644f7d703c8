"""CloudFormation, complete: every resource of a template is made, or the stack is refused.

moto leaves out, with no more than a warning, each resource type that it does not know, and several properties of those
that it does. :class:`ResourceType` describes one more type by the call that makes it.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import boto3
from botocore.model import ListShape, MapShape, Shape, StructureShape
from moto.cloudformation import parsing
from moto.cloudformation.exceptions import ValidationError
from moto.core.common_models import CloudFormationModel

from tidelog_sandbox.mending import mend


@dataclass(frozen=True, slots=True)
class Made:
    """A resource: what Ref gives, and the attributes that GetAtt gives."""

    ref: str
    attributes: Mapping[str, str]


class Api:
    """Calls to this very server, with values as the service's model wants them.

    CloudFormation lets a number be text, an API does not. A property that the API does not know fails the deployment.
    """

    def __init__(self, endpoint: str, region: str) -> None:
        self._endpoint = endpoint
        self.region = region
        self._clients: dict[str, Any] = {}

    def call(self, service: str, operation: str, **values: Any) -> dict[str, Any]:
        """Call an operation, named as in the service's model."""
        if service not in self._clients:
            self._clients[service] = boto3.client(
                service,  # type: ignore[call-overload]  # one of many
                endpoint_url=self._endpoint,
                region_name=self.region,
                aws_access_key_id="sandbox",
                aws_secret_access_key="sandbox",  # noqa: S106  # moto takes any
            )
        client = self._clients[service]
        shape = client.meta.service_model.operation_model(operation).input_shape
        method = next(name for name, known in client.meta.method_to_api_mapping.items() if known == operation)
        answer: dict[str, Any] = getattr(client, method)(**_fitted(values, shape))
        return answer


def _fitted(value: Any, shape: Shape) -> Any:
    """A value with the types of a shape: text becomes a number or a truth where the shape has one."""
    match shape:
        case StructureShape():
            return {
                name: _fitted(item, shape.members[name]) if name in shape.members else item
                for name, item in value.items()
            }
        case ListShape():
            return [_fitted(item, shape.member) for item in value]
        case MapShape():
            return {name: _fitted(item, shape.value) for name, item in value.items()}
    match shape.type_name:
        case "integer" | "long":
            return int(value)
        case "double" | "float":
            return float(value)
        case "boolean":
            return str(value).lower() == "true"
        case "string" if isinstance(value, dict | list):
            return json.dumps(value)
        case "string":
            return str(value)
    return value


@dataclass(frozen=True, slots=True)
class ResourceType:
    """A type of resource that moto's CloudFormation lacks.

    Args:
        name: such as ``AWS::CloudWatch::Alarm``.
        name_property: the property that names the resource; without one it gets a name of CloudFormation's.
        make: makes the resource from its name and properties.
        remove: removes the resource by its Ref.
    """

    name: str
    name_property: str
    make: Callable[[Api, str, dict[str, Any]], Made]
    remove: Callable[[Api, str], object] = lambda _api, _ref: None


def register(kind: ResourceType, endpoint: str) -> type[CloudFormationModel]:
    """Make moto know a type. It finds the subclasses of its model, so the caller has to keep the class."""

    def make(name: str, properties: Mapping[str, Any], region: str) -> CloudFormationModel:
        made = kind.make(Api(endpoint, region), name, dict(properties))
        resource: Any = model()
        resource.physical_resource_id = made.ref
        resource.get_cfn_attribute = made.attributes.__getitem__
        return cast("CloudFormationModel", resource)

    def create(name: str, document: Mapping[str, Any], _account: str, region: str, **_: object) -> CloudFormationModel:
        return make(name, document.get("Properties", {}), region)

    def update(
        *, original_resource: Any, cloudformation_json: Mapping[str, Any], region_name: str, **_: object
    ) -> CloudFormationModel:
        return make(original_resource.physical_resource_id, cloudformation_json["Properties"], region_name)

    def delete(name: str, _document: object, _account: str, region: str) -> None:
        kind.remove(Api(endpoint, region), name)

    model = type(
        kind.name.replace("::", ""),
        (CloudFormationModel,),
        {
            "__module__": "moto.cloudformation",  # moto derives the service from it
            "cloudformation_type": staticmethod(lambda: kind.name),
            "cloudformation_name_type": staticmethod(lambda: kind.name_property),
            "has_cfn_attr": staticmethod(lambda _name: True),
            "create_from_cloudformation_json": staticmethod(create),
            "update_from_cloudformation_json": staticmethod(update),
            "delete_from_cloudformation_json": staticmethod(delete),
            "is_created": lambda _self: True,
        },
    )
    return model


def name_failures() -> None:
    """Say which resource could not be made, and why; moto's answer is 500."""

    def create_or_say(logical_id: str, *args: Any, **kwargs: Any) -> Any:
        try:
            return create(logical_id, *args, **kwargs)
        except ValidationError:
            raise
        except Exception as error:
            raise ValidationError(message=f"{logical_id}: {type(error).__name__}: {error}") from error

    create = mend(parsing, "parse_and_create_resource", create_or_say)


def refuse_unknown_types() -> None:
    """Fail a deployment before it begins when it has a resource that nobody would make."""

    def load_known(resources: parsing.ResourceMap) -> None:
        known = parsing.get_model_map()
        for name, resource in resources._resource_json_map.items():  # noqa: SLF001  # moto's own
            kind = resource["Type"]
            if kind not in known and kind not in parsing.NULL_MODELS:
                raise ValidationError(
                    message=f"{name}: the sandbox does not make resources of type {kind}. Describe it in resources.py"
                )
        load(resources)

    load = mend(parsing.ResourceMap, "load", load_known)
