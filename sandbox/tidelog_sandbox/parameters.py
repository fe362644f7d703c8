"""The parameters of a template, checked as CloudFormation checks them; moto takes anything."""

import re
from collections.abc import Mapping
from typing import Any

from tidelog_sandbox.errors import SandboxError


def check(slots: Mapping[str, Mapping[str, Any]], given: Mapping[str, str]) -> None:
    """Refuse values that the template does not allow.

    Args:
        slots: the template's ``Parameters``.
        given: the values that are given, by name.

    Raises:
        SandboxError: a parameter does not exist, has neither value nor default, or its value is not allowed.
    """
    if unknown := given.keys() - slots.keys():
        raise SandboxError(f"set parameters: the template has no {', '.join(sorted(unknown))}")
    for name, slot in slots.items():
        if name not in given and "Default" not in slot:
            raise SandboxError(f"set parameters: {name} is needed. {slot.get('Description', '')}")
        value = str(given.get(name, slot.get("Default")))
        if fault := _fault(slot, value):
            raise SandboxError(f"set parameters: {name} {slot.get('ConstraintDescription', fault)}, and not {value!r}")


def _fault(slot: Mapping[str, Any], value: str) -> str:
    """What a value must be and is not; empty if it is."""
    if "AllowedValues" in slot and value not in map(str, slot["AllowedValues"]):
        return f"must be one of {', '.join(map(str, slot['AllowedValues']))}"
    if "AllowedPattern" in slot and not re.fullmatch(slot["AllowedPattern"], value):
        return f"must match {slot['AllowedPattern']}"
    if slot["Type"] == "Number":
        try:
            size = float(value)
        except ValueError:
            return "must be a number"
        low, high = slot.get("MinValue"), slot.get("MaxValue")
    else:
        size, low, high = len(value), slot.get("MinLength"), slot.get("MaxLength")
    if low is not None and size < float(low):
        return f"must be at least {low}"
    if high is not None and size > float(high):
        return f"must be at most {high}"
    return ""
