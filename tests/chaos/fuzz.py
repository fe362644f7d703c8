"""Messages that nobody should send."""

from __future__ import annotations

import json
import random
from collections.abc import Callable

VALID = {"version": 1, "type": "ingest", "table": "public.t"}
_ODD = [
    "'",
    '"',
    "\\",
    "\0",
    "\ud800",
    "\udfff",
    "\u202e",
    "é",
    "🦆",
    "\n",
    "\t",
    " ",
    ".",
    ";",
    "$",
    "%",
    "{",
    "--",
    "\x7f",
]
_NUMBERS = [0, 2, -1, 1.5, 1e400, -1e400, float("nan"), 10**30, 2**63, -(2**31), 1e-320]
_VALUES = [None, True, False, "", "1", [], {}, [1], {"version": 1}, *_NUMBERS]


def message(draw: random.Random) -> str:
    """Return the body of a message: as a rule one that can't be understood."""
    return draw.choice(_FINE if draw.random() < 0.02 else _WRONG)(draw)


def is_sendable(body: str) -> bool:
    """Say whether SQS takes a body at all: it has to be text of XML's characters.

    Source: https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_SendMessage.html.
    """
    return bool(body) and all(
        c in "\t\n\r" or "\x20" <= c <= "\ud7ff" or "\ue000" <= c <= "\ufffd" or c >= "\U00010000" for c in body
    )


def _valid(draw: random.Random) -> str:
    return json.dumps(VALID | {"tick": draw.choice([None, str(draw.random())])})


def _text(draw: random.Random) -> str:
    return "".join(
        chr(draw.choice([draw.randrange(32, 127), draw.randrange(0xA0, 0xD7FF)])) for _ in range(_size(draw))
    )


def _cut(draw: random.Random) -> str:
    body = _valid(draw)
    return body[: draw.randrange(1, len(body))]


def _mangled(draw: random.Random) -> str:
    body = list(_valid(draw))
    for _ in range(draw.randrange(1, 5)):
        place = draw.randrange(len(body))
        body[place : place + draw.randrange(2)] = draw.choice(["", '"', ",", "{", "}", "\\", "0", "é", ":", "\\u0000"])
    return "".join(body)


def _no_object(draw: random.Random) -> str:
    return json.dumps(draw.choice([*_VALUES, "x" * _size(draw), [VALID]]))


def _deep(draw: random.Random) -> str:
    depth = draw.choice([10, 1_000, 1_000, 20_000])
    value = draw.choice(["[" * depth, "[" * depth + "]" * depth, '{"a":' * depth, '{"a":' * depth + "1" + "}" * depth])
    return value if draw.random() < 0.5 else f'{{"version":1,"type":"ingest","table":{value}}}'


def _huge_number(draw: random.Random) -> str:
    number = draw.choice(["9" * 5000, "1e999999", "-" + "1" * 400, "0." + "0" * 5000 + "1", "1E+2", "00", "1.", "0x1"])
    return f'{{"version":{number},"type":"ingest","table":"public.t"}}'


def _wrong_value(draw: random.Random) -> str:
    return json.dumps(VALID | {draw.choice(["version", "type", "table", "tick"]): draw.choice(_VALUES)})


def _missing_field(draw: random.Random) -> str:
    return json.dumps({name: value for name, value in VALID.items() if draw.random() < 0.6})


def _unknown_field(draw: random.Random) -> str:
    return json.dumps(VALID | {draw.choice([_name(draw), "Table", "rows"]): draw.choice(_VALUES)})


def _twice_the_same_key(draw: random.Random) -> str:
    fields = [f'"version":{draw.choice([1, 2])}', '"type":"ingest"', '"table":"public.t"', '"table":"public.t"']
    draw.shuffle(fields)
    return "{" + ",".join([*fields, f'"version":{draw.choice([1, 2])}']) + "}"


def _odd_table(draw: random.Random) -> str:
    name = draw.choice([".", "..", "...", "public.", ".t", "public", "", f"public.{_name(draw)}", f"{_name(draw)}.t"])
    return json.dumps(VALID | {"table": name}, ensure_ascii=draw.random() < 0.8)


def _long(draw: random.Random) -> str:
    return json.dumps(
        VALID | {draw.choice(["table", "type", "x"]): "x" * draw.choice([1_000, 10_000, 10_000, 100_000])}
    )


def _name(draw: random.Random) -> str:
    return "".join(draw.choice([*_ODD, "t", "a", "Z"]) for _ in range(draw.choice([1, 3, 40, 300])))


def _size(draw: random.Random) -> int:
    return draw.choice([1, 2, 10, 100, 1000])


_FINE: list[Callable[[random.Random], str]] = [_valid, _twice_the_same_key]
_WRONG: list[Callable[[random.Random], str]] = [
    _text, _cut, _mangled, _no_object, _deep, _huge_number, _wrong_value, _missing_field, _unknown_field, _odd_table,
    _long,
]  # fmt: skip
"""As a rule: what is mangled may be right by chance."""
