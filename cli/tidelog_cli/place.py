"""Where a command that only reads finds its lake: in a deployed stack, in a bucket or in a folder."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from tidelog.failures import store_errors
from tidelog.stores import Bucket, Store, find_store
from tidelog_cli.stack import Stack, client_of

AnyStack = Annotated[
    str | None,
    typer.Option("--stack", envvar="TIDELOG_STACK", metavar="NAME", help="The CloudFormation stack whose lake it is."),
]
AnyLake = Annotated[
    str | None,
    typer.Option("--lake", metavar="DIR|s3://…", help="The lake itself: a folder, a bucket, or a prefix in a bucket."),
]


def find_place(stack: str | None, lake: str | None) -> tuple[Store, Stack | None]:
    """Return the lake, and the stack that it was found by; a lake that is named itself counts first.

    Raises:
        typer.BadParameter: neither is named.
        InvalidSetting: there is no such stack, or no lake there.
        AccessDenied, StoreUnreachable: AWS says no, or nothing.
    """
    if lake:
        return find_store(lake, _s3), None
    if not stack:
        raise typer.BadParameter("name a stack with --stack, or a lake with --lake", param_hint="--stack")
    found = Stack.find(stack)
    return Bucket(found.client("s3"), found.outputs["LakeBucket"]), found


def _s3() -> Any:
    with store_errors("open", "the lake"):
        return client_of("s3")
