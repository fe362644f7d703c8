"""Names of tables as a user writes them."""

from __future__ import annotations

import typer

from tidelog.tables import TableName


def table_name(text: str, hint: str = "TABLE") -> TableName:
    """Read a name.

    Args:
        text: the name.
        hint: the argument or option that it comes from.

    Raises:
        typer.BadParameter: it is none.
    """
    try:
        return TableName.parse(text)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint=hint) from error
