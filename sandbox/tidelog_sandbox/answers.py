"""What a query of CloudWatch Logs Insights answers: its commands, run over log lines."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Line = Mapping[str, Any]
Expression = tuple[Any, ...]
"""What is done, and with what: ``("field", name)``, ``("value", it)``, ``("call", function, *arguments)`` and the
operators."""

FUNCTIONS = {"bin": 1, "ispresent": 1}
TOTALS: Mapping[str, Callable[[Sequence[Any]], Any]] = {
    "count": len,
    "sum": lambda found: sum(map(_number, found)),
    "avg": lambda found: sum(map(_number, found)) / len(found) if found else None,
    "min": lambda found: min(found, default=None),
    "max": lambda found: max(found, default=None),
    "earliest": lambda found: found[0] if found else None,
    "latest": lambda found: found[-1] if found else None,
}


@dataclass(frozen=True, slots=True)
class Named:
    """An expression, and what its values are called in the answer."""

    expression: Expression
    name: str


@dataclass(frozen=True, slots=True)
class Command:
    """One command of a query: its word, its expressions, and those that ``stats`` groups by."""

    word: str
    arguments: tuple[Named, ...] = ()
    by: tuple[Named, ...] = ()


def _number(value: Any) -> float:
    return float(value) if isinstance(value, str) else value


def _alike(left: Any, right: Any) -> tuple[Any, Any]:
    """Both as numbers where they are such, else as text."""
    try:
        return _number(left), _number(right)
    except (TypeError, ValueError):
        return str(left), str(right)


_COMPARISONS: Mapping[str, Callable[[Any, Any], bool]] = {
    "=": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
    "<": lambda a, b: a < b,
    ">": lambda a, b: a > b,
    "<=": lambda a, b: a <= b,
    ">=": lambda a, b: a >= b,
}
_LOGIC: Mapping[str, Callable[[Sequence[Any]], bool]] = {
    "and": all,
    "or": any,
    "in": lambda found: found[0] in found[1:],
}
_ARITHMETIC: Mapping[str, Callable[[float, float], float]] = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "/": lambda a, b: a / b,
}


def _value(expression: Expression, rows: Sequence[Line]) -> Any:
    """The value of an expression over some lines; of one that is about a single line, over the first."""
    match expression:
        case ("field", name):
            return rows[0].get(name)
        case ("value", value):
            return value
        case ("call", function, *arguments):
            return _called(function, arguments, rows)
        case ("like", inner, pattern):
            return re.search(pattern, str(_value(inner, rows) or "")) is not None
        case ("not", inner):
            return not _value(inner, rows)
    sign, *found = expression[0], *(_value(each, rows) for each in expression[1:])
    if sign in _LOGIC:
        return _LOGIC[sign](found)
    if None in found:
        return None if sign in _ARITHMETIC else False
    return _ARITHMETIC[sign](*map(_number, found)) if sign in _ARITHMETIC else _COMPARISONS[sign](*_alike(*found))


def _called(function: str, arguments: Sequence[Expression], rows: Sequence[Line]) -> Any:
    if function == "bin":
        span = _value(arguments[0], rows)
        return rows[0]["@timestamp"] // span * span
    if function == "ispresent":
        return _value(arguments[0], rows) is not None
    if not arguments:
        return TOTALS[function](rows)
    values = (_value(arguments[0], [row]) for row in rows)
    return TOTALS[function]([value for value in values if value is not None])


def _filter(command: Command, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [row for row in rows if _value(command.arguments[0].expression, [row])]


def _show(command: Command, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The lines with what the command names made; of a line nothing is taken away, as in Insights."""
    return [{**row, **{each.name: _value(each.expression, [row]) for each in command.arguments}} for row in rows]


def _stats(command: Command, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault(tuple(_value(each.expression, [row]) for each in command.by), []).append(row)
    names = [each.name for each in command.by]
    return [
        {**dict(zip(names, key, strict=True)), **{each.name: _value(each.expression, of) for each in command.arguments}}
        for key, of in groups.items()
    ]


def _sort(command: Command, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    for each in reversed(command.arguments):
        there = [row for row in rows if _value(each.expression, [row]) is not None]
        there.sort(key=lambda row: _value(each.expression, [row]), reverse=each.name == "desc")
        rows = there + [row for row in rows if _value(each.expression, [row]) is None]
    return rows


STEPS: Mapping[str, Callable[[Command, list[dict[str, Any]]], list[dict[str, Any]]]] = {
    "fields": _show,
    "display": _show,
    "filter": _filter,
    "stats": _stats,
    "sort": _sort,
    "limit": lambda command, rows: rows[: command.arguments[0].expression[1]],
}
