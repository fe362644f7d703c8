"""Which type of DuckDB carries the values of which PostgreSQL type exactly, and how their text becomes such values.

A value's text is the JSON string's, or else the JSON text. Every expression is SQL of DuckDB.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

_DIGITS = 38
_PARTS = re.compile(r'([a-z ]+|"char")(?:\((\d+)(?:,(-?\d+))?\))?((?: with(?:out)? time zone)?)((?:\[\])?)')
TEXTS = frozenset({"text", "character varying", "character", "bpchar", "name", '"char"'})
_INTEGER = r"-?[0-9]+"
_FLOAT = r"-?[0-9][-+.0-9e]*|NaN|-?Infinity"
_DAY = r"[0-9]{4,}-[0-9]{2}-[0-9]{2}"
_MINUTES = r"[0-9]{2}:[0-9]{2}(\.[0-9]{1,6})?"
_UUID = "[0-9a-f]{8}-([0-9a-f]{4}-){3}[0-9a-f]{12}"
_BEFORE_CHRIST = "BC' THEN regexp_replace({0}, '^([^T ]+)T?(.*) BC$', '\\1 (BC) \\2') ELSE {0} END"


@dataclass(frozen=True, slots=True)
class Carried:
    """A type of DuckDB that can carry a column.

    Attributes:
        type: its name.
        value: gives the value of a text, NULL where there is none.
        fits: says of a text that is not NULL whether the value is exactly what it says; true, false or NULL.
        bare: whether JSON has no quotes around it but for words such as NaN.
    """

    type: str
    value: Callable[[str], str]
    fits: Callable[[str], str]
    bare: bool = False


@dataclass(frozen=True, slots=True)
class TypeName:
    """A built-in type as `format_type` prints it."""

    name: str
    """Without modifiers."""
    most: int | None
    """Digits of a numeric, or the like."""
    scale: int
    many: bool
    """Whether it is an array of that type."""

    @classmethod
    def parse(cls, text: str) -> TypeName | None:
        """Read a type's name; None where it is not built in, or nothing that matters here."""
        found = _PARTS.fullmatch(text)
        if not found:
            return None
        name, most, scale, zone, many = found.groups()
        return cls(name.strip() + zone, int(most) if most else None, int(scale or 0), bool(many))

    @property
    def digits(self) -> tuple[int, int] | None:
        """Digits in all and behind the point that values of a numeric need; None where there is no limit."""
        if self.name == "money":  # As numeric; two digits unless the server's lc_monetary says otherwise.
            return 19, 2
        if self.name != "numeric" or self.most is None:
            return None
        return (self.most - self.scale, 0) if self.scale < 0 else (max(self.most, self.scale), self.scale)


def carried(type_name: str) -> Carried | None:
    """Return how values of a PostgreSQL type, as `format_type` prints it, are carried; None for those that stay text.

    A column of which a value does not fit has to stay text, too.
    """
    found = TypeName.parse(type_name)
    one = _scalar(found) if found else None
    if not found or not found.many or one is None:
        return one
    return _list(one) if one.type != "JSON" else None  # Arrays of those travel as PostgreSQL's text.


def _scalar(type_name: TypeName) -> Carried | None:
    if type_name.name in TEXTS:
        return Carried("VARCHAR", str, lambda _: "true")
    if digits := type_name.digits:
        return _decimal(*digits)
    make = _SCALARS.get(type_name.name)
    return make() if make else None


def _cast(kind: str, pattern: str, *, bare: bool = False) -> Carried:
    return Carried(
        kind,
        lambda text: f"TRY_CAST({text} AS {kind})",
        lambda text: f"regexp_full_match({text}, '{pattern}') AND TRY_CAST({text} AS {kind}) IS NOT NULL",
        bare,
    )


def _decimal(digits: int, scale: int) -> Carried | None:
    if digits > _DIGITS:
        return None
    fraction = f"(\\.[0-9]{{1,{scale}}})?" if scale > 0 else ""
    return _cast(f"DECIMAL({digits},{scale})", _INTEGER + fraction, bare=True)


def _bytes() -> Carried:
    def fits(text: str) -> str:
        return f"regexp_full_match({text}, '\\\\x([0-9a-f]{{2}})*')"

    return Carried("BLOB", lambda text: f"CASE WHEN {fits(text)} THEN unhex(substr({text}, 3)) END", fits)


def _moment(kind: str, pattern: str) -> Carried:
    """Infinity does not fit: in a file it would be a date of some far year."""

    def value(text: str) -> str:
        return f"TRY_CAST(CASE WHEN {text} LIKE '% {_BEFORE_CHRIST.format(text)} AS {kind})"

    def fits(text: str) -> str:
        return f"regexp_full_match({text}, '{pattern}( BC)?') AND isfinite({value(text)})"

    return Carried(kind, value, fits)


def _list(one: Carried) -> Carried:
    """One dimension that counts from 1; of others, and of an array that JSON can't say, the text is PostgreSQL's."""

    def elements(text: str) -> str:
        if not one.bare:
            return f"from_json({text}, '[\"VARCHAR\"]')"
        parts = f"string_split(substr({text}, 2, length({text}) - 2), ',')"
        none = f"CASE WHEN {text} = '[]' THEN [] ELSE {parts} END"
        return f"list_transform({none}, lambda e: nullif(trim(e, '\"'), 'null'))"

    def flat(text: str) -> str:
        return f"(starts_with({text}, '[') AND NOT regexp_matches({text}, '^\\[(\\[|-?[0-9]+:)'))"

    def value(text: str) -> str:
        made = f"list_transform({elements(text)}, lambda v: {one.value('v')})"
        return f"CASE WHEN {flat(text)} THEN {made} END"

    def fits(text: str) -> str:
        bad = f"list_filter({elements(text)}, lambda v: v IS NOT NULL AND NOT coalesce({one.fits('v')}, false))"
        return f"CASE WHEN {flat(text)} THEN len({bad}) = 0 ELSE false END"

    return Carried(f"{one.type}[]", value, fits)


_SCALARS: dict[str, Callable[[], Carried]] = {
    "smallint": lambda: _cast("SMALLINT", _INTEGER, bare=True),
    "integer": lambda: _cast("INTEGER", _INTEGER, bare=True),
    "bigint": lambda: _cast("BIGINT", _INTEGER, bare=True),
    "real": lambda: _cast("FLOAT", _FLOAT, bare=True),
    "double precision": lambda: _cast("DOUBLE", _FLOAT, bare=True),
    "boolean": lambda: _cast("BOOLEAN", "true|false", bare=True),
    "uuid": lambda: _cast("UUID", _UUID),
    "json": lambda: _cast("JSON", "(?s).*"),
    "jsonb": lambda: _cast("JSON", "(?s).*"),
    "bytea": _bytes,
    "time without time zone": lambda: _cast("TIME", f"([01][0-9]|2[0-3]):{_MINUTES}"),  # Parquet knows no 24:00.
    "date": lambda: _moment("DATE", _DAY),
    "timestamp without time zone": lambda: _moment("TIMESTAMP", f"{_DAY}T[0-9]{{2}}:{_MINUTES}"),
    "timestamp with time zone": lambda: _moment("TIMESTAMP WITH TIME ZONE", f"{_DAY}T[0-9]{{2}}:{_MINUTES}[-+][0-9:]+"),
}
