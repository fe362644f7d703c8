"""Schema documents: what readers of a table's segments have to know of its columns."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import msgspec


class ColumnDocument(msgspec.Struct, frozen=True, omit_defaults=True):
    """A column in a schema document, or a field of its composite type; its order is that of the keys in each line."""

    name: str
    type: str
    not_null: bool = False
    default: str | None = None
    generated: str = ""
    labels: tuple[str, ...] = ()
    """Of the enum that it is or holds."""
    fields: tuple[ColumnDocument, ...] = ()
    """Of the composite type that it is or holds."""


class SchemaDocument(msgspec.Struct, frozen=True):
    """The columns, types and key of a table at some time; kept at `schema/<table>/<fingerprint>.json`."""

    table: str
    columns: tuple[ColumnDocument, ...]
    key: tuple[str, ...]

    @property
    def fingerprint(self) -> str:
        """Sixteen hexadecimal digits that stand for the whole document but the table's name."""
        return hashlib.sha256(msgspec.json.encode((self.columns, self.key))).hexdigest()[:16]

    def difference(self, older: SchemaDocument) -> str:
        """Say in words how this document differs from an older one of the same table."""
        words = _differences("column", self.columns, older.columns)
        if self.key != older.key:
            words.append(f"primary key {', '.join(older.key) or 'none'} to {', '.join(self.key) or 'none'}")
        return "; ".join(words) or "order of columns changed"


def _differences(kind: str, newer: Iterable[ColumnDocument], older: Iterable[ColumnDocument]) -> list[str]:
    new, old = ({column.name: column for column in columns} for columns in (newer, older))
    words = [f"{kind} {name} added" for name in new if name not in old]
    words += [f"{kind} {name} dropped" for name in old if name not in new]
    for name in (name for name in new if name in old and new[name] != old[name]):
        changes = [
            f"{what} {getattr(old[name], what)!r} to {getattr(new[name], what)!r}"
            for what in ColumnDocument.__struct_fields__
            if what != "fields" and getattr(old[name], what) != getattr(new[name], what)
        ]
        changes += _differences("field", new[name].fields, old[name].fields)
        words.append(f"{kind} {name} changed ({', '.join(changes) or 'order of fields'})")
    return words
