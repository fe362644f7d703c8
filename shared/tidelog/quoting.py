"""The only place where names and values become SQL text."""

from __future__ import annotations


def identifier(name: str) -> str:
    """Quote a name, always, so that no name is ever folded or taken for a keyword.

    Raises:
        ValueError: the name holds a NUL, which PostgreSQL can't store.
    """
    return '"' + _checked(name).replace('"', '""') + '"'


def literal(value: str) -> str:
    """Quote a text value; the session has standard_conforming_strings on, so a backslash is a backslash.

    Raises:
        ValueError: the value holds a NUL, which PostgreSQL can't store.
    """
    return "'" + _checked(value).replace("'", "''") + "'"


def _checked(text: str) -> str:
    if "\0" in text:
        raise ValueError("PostgreSQL text can't hold a NUL character")
    return text
