"""Parameter Store refuses what the real one refuses."""

import uuid

import pytest

from tidelog_sandbox.cloud import Cloud


@pytest.mark.parametrize(
    ("tier", "limit"), [(None, 4096), ("Standard", 4096), ("Advanced", 8192), ("Intelligent-Tiering", 8192)]
)
def test_a_value_has_a_limit(cloud: Cloud, tier: str | None, limit: int) -> None:
    """By the tier of the parameter, in bytes; one more is refused, and the value stays as it was."""
    ssm, name = cloud.client("ssm"), f"/{uuid.uuid4()}"
    options = {"Name": name, "Type": "String", "Overwrite": True, **({"Tier": tier} if tier else {})}
    ssm.put_parameter(Value="x" * limit, **options)
    for value in ("x" * (limit + 1), "é" * (limit // 2) + "x"):
        with pytest.raises(ssm.exceptions.ClientError, match=f"a maximum parameter value of {limit} char") as refused:
            ssm.put_parameter(Value=value, **options)
        assert refused.value.response["Error"]["Code"] == "ValidationException"
    assert ssm.get_parameter(Name=name)["Parameter"]["Value"] == "x" * limit


def test_a_parameter_stays_advanced(cloud: Cloud) -> None:
    """Once it is."""
    ssm, name = cloud.client("ssm"), f"/{uuid.uuid4()}"
    ssm.put_parameter(Name=name, Type="String", Value="x", Tier="Advanced")
    ssm.put_parameter(Name=name, Overwrite=True, Value="x" * 8192)
    assert len(ssm.get_parameter(Name=name)["Parameter"]["Value"]) == 8192


def test_a_parameter_that_was_refused_is_not_there(cloud: Cloud) -> None:
    """Nor a trace of it."""
    ssm, name = cloud.client("ssm"), f"/{uuid.uuid4()}"
    with pytest.raises(ssm.exceptions.ClientError):
        ssm.put_parameter(Name=name, Type="String", Value="x" * 4097)
    with pytest.raises(ssm.exceptions.ParameterNotFound):
        ssm.get_parameter(Name=name)


def test_a_version_can_be_asked_for_by_name(cloud: Cloud) -> None:
    """One that never was is not found."""
    ssm, name = cloud.client("ssm"), f"/{uuid.uuid4()}"
    for value in ("first", "second"):
        ssm.put_parameter(Name=name, Type="String", Value=value, Overwrite=True)
    found = [ssm.get_parameter(Name=f"{name}:{version}")["Parameter"] for version in (1, 2)]
    assert [(each["Value"], each["Version"]) for each in found] == [("first", 1), ("second", 2)]
    with pytest.raises(ssm.exceptions.ParameterVersionNotFound):
        ssm.get_parameter(Name=f"{name}:3")
