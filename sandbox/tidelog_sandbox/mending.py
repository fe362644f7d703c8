"""Replacing what moto does, and noticing when moto no longer is as it was."""

from typing import Any

from tidelog_sandbox.errors import SandboxError


def mend(owner: Any, name: str, replacement: Any) -> Any:
    """Replace an attribute of a class, module or object of moto's, and give the one that was there.

    Raises:
        SandboxError: there is none of that name: another version of moto needs another remedy, or none.
    """
    if not hasattr(owner, name):
        raise SandboxError(f"mend moto: {owner} has no {name}. Install the version that the constraints name")
    original = getattr(owner, name)
    setattr(owner, name, replacement)
    return original


def add(owner: Any, name: str, addition: Any) -> None:
    """Give a class of moto's an attribute that it lacks.

    Raises:
        SandboxError: it has one by now.
    """
    if hasattr(owner, name):
        raise SandboxError(f"mend moto: {owner} has a {name} of its own. Install the version that the constraints name")
    setattr(owner, name, addition)
