"""Queries of logs answer as CloudWatch Logs Insights does, as far as a template uses them."""

from typing import Any

import pytest

from tidelog_sandbox import SandboxError
from tidelog_sandbox.insights import read

LINES: list[dict[str, Any]] = [
    {"@timestamp": 10, "message": "done", "table": "a", "rows": 3, "at": "2026-01-01"},
    {"@timestamp": 3590, "message": "done", "table": "b", "rows": 5, "at": "2026-01-02"},
    {"@timestamp": 3601, "message": "done", "table": "a", "rows": 4, "at": "2026-01-03"},
    {"@timestamp": 3700, "message": "failed", "table": "a", "@message": "Task timed out after 3 s"},
]


@pytest.mark.parametrize(
    ("query", "answer"),
    [
        ("filter message = 'done' and rows > 3 | fields table", ["b", "a"]),
        ('filter message in ["failed", "x"] or rows = 5 | sort @timestamp desc', ["a", "b"]),
        ("filter not message = 'done'", ["a"]),
        ("filter @message like /timed (out|in)/", ["a"]),
        ("filter rows * 2 - 1 >= 8 + 1 | limit 1", ["b"]),
        ("filter ispresent(rows) and (rows < 4 or rows > 4) | sort rows", ["b", "a"]),
        ("stats sum(rows) as total by table | sort total asc", ["b", "a"]),
        ("filter table != 'b' | stats count(*) as n by table | filter n = 3", ["a"]),
    ],
)
def test_lines_are_chosen_and_sorted(query: str, answer: list[str]) -> None:
    """A field that a line lacks fits no comparison; without a word sort begins with the greatest."""
    assert [row["table"] for row in read(query).run(LINES)] == answer


def test_lines_are_added_up_by_group_and_time() -> None:
    """With arithmetic around what is added up, and the latest by the order of the lines."""
    query = read(
        "SOURCE 'group' | filter message = \"done\" | "
        "stats sum(rows) / 2 as half, avg(rows), max(rows) as most, latest(at) as last, earliest(at), count(@message) "
        "by table, bin(1h) as hour | sort hour asc, table desc"
    )
    assert query.sources == ("group",)
    assert query.fields == {"message", "rows", "at", "@message", "table", "@timestamp"}
    assert query.run(LINES)[0] == {
        "table": "b", "hour": 0, "half": 2.5, "avg(rows)": 5, "most": 5, "last": "2026-01-02",
        "earliest(at)": "2026-01-02", "count(@message)": 0,
    }  # fmt: skip
    assert [(row["table"], row["hour"]) for row in query.run(LINES)] == [("b", 0), ("a", 0), ("a", 3600)]


@pytest.mark.parametrize(
    ("query", "complaint"),
    [
        ("", "a field is missing"),
        ("SOURCE 'group'", "no command"),
        ("fields a | ", "field is missing"),
        ("parse a", "does not know the command parse"),
        ("fields a as by", "by is a word"),
        ("filter a =", "missing at the end"),
        ("filter (a", r"\) is missing"),
        ("fields by", "can't stand there"),
        ("stats sum(a) by b c", "what is 'c'"),
        ("stats a", "functions of many lines"),
        ("fields median(a)", "does not know the function median"),
        ("fields a by b", "has no by"),
        ("limit many", "a number is missing"),
        ("fields a ; b", "what is ';"),
        ("filter a like b", "what is 'b'"),
    ],
)
def test_what_is_no_query_is_refused(query: str, complaint: str) -> None:
    """Or is one that the sandbox does not know."""
    with pytest.raises(SandboxError, match=complaint):
        read(query)
