"""Parameter Store as the real one behaves: it refuses a value that is too large for its tier, where moto takes any."""

from typing import Any

from moto.ssm.exceptions import ValidationException
from moto.ssm.models import Parameter, SimpleSystemManagerBackend

from tidelog_sandbox.mending import mend

_LIMITS = {"Standard": 4096, "Advanced": 8192, "Intelligent-Tiering": 8192}
_ADVICE = (
    " To create a larger parameter value, upgrade the parameter to use the advanced-parameter tier. For more "
    "information, see https://docs.aws.amazon.com/systems-manager/latest/userguide/"
    "parameter-store-advanced-parameters.html"
)


def install() -> None:
    """Mend moto's Parameter Store."""

    def put_parameter(
        backend: SimpleSystemManagerBackend, name: str, description: str, value: str, *args: Any, **kwargs: Any
    ) -> Parameter:
        known = backend._parameters  # noqa: SLF001  # moto's own
        before = known[name][-1:] if name in known else []
        tier = kwargs["tier"] or (before[0].tier if before else None) or backend.default_parameter_tier
        limit = _LIMITS[tier]
        if len((value or "").encode()) > limit:
            raise ValidationException(
                f"{'Standard' if tier == 'Standard' else 'Advanced'} tier parameters support a maximum parameter value "
                f"of {limit} characters.{_ADVICE if tier == 'Standard' else ''}"
            )
        parameter: Parameter = put(backend, name, description, value, *args, **kwargs)
        return parameter

    put = mend(SimpleSystemManagerBackend, "put_parameter", put_parameter)
