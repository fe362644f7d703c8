"""Marks: small facts that outlive a process, in Parameter Store, written by whoever is first."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from botocore.exceptions import ClientError

from tidelog.failures import error_code, store_errors

if TYPE_CHECKING:
    from mypy_boto3_ssm import SSMClient


class Mark(msgspec.Struct, frozen=True):
    """A fact, and how often it was written."""

    value: str
    version: int


class Marks:
    """The marks below a prefix of parameters."""

    def __init__(self, ssm: SSMClient, prefix: str) -> None:
        self._ssm = ssm
        self._prefix = prefix

    def read(self, name: str) -> Mark | None:
        """Return a mark, None where there is none."""
        with store_errors("read the mark", name):
            try:
                found = self._ssm.get_parameter(Name=f"{self._prefix}/{name}")["Parameter"]
            except ClientError as error:
                if error_code(error) != "ParameterNotFound":
                    raise
                return None
        return Mark(found["Value"], found["Version"])

    def write(self, name: str, value: str, after: Mark | None) -> bool:
        """Write a mark; return whether nobody else has written it since it was read.

        Parameter Store has no conditional write, but it counts: of several that follow on one version, exactly one gets
        the next. A new parameter is created by one only.
        """
        with store_errors("write the mark", name):
            try:
                written = self._ssm.put_parameter(
                    Name=f"{self._prefix}/{name}", Value=value, Type="String", Overwrite=after is not None
                )
            except ClientError as error:
                if error_code(error) != "ParameterAlreadyExists":
                    raise
                return False
        return after is None or written["Version"] == after.version + 1
