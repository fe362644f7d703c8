"""Parameter Store: one summary per table, under names of every kind."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from tests.faults import Process, Step, refusal
from tests.tide import Lake
from tidelog.errors import AccessDenied, StoreUnreachable, UnreadableData
from tidelog.parameters import Parameters, Summary, summarize
from tidelog.state import State
from tidelog.tables import TableName

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
NAMES = [
    TableName(f"s{number}", name)
    for number, name in enumerate(["t", "a.b", 'q"/\\', "x y%2F", "é" * 31, "a_b-c", "%41", ".41"] * 3)
]


@pytest.fixture
def parameters(lake: Lake) -> Parameters:
    """The summaries of an empty lake."""
    return Parameters(lake.ssm, lake.prefix)


def test_every_table_has_a_summary_of_its_own(parameters: Parameters) -> None:
    """Also where there are more than a page of them; one that is not there is None."""
    expected = {name: Summary(number, number, "2026-11-23", 1, 2**60 + number) for number, name in enumerate(NAMES)}
    for name, summary in expected.items():
        parameters.write(name, summary)
    assert dict(parameters.read_all()) == expected
    assert {name: parameters.read(name) for name in NAMES} == expected
    assert parameters.read(TableName("s0", "nosuch")) is None


def test_a_summary_is_only_ever_projected_forward(parameters: Parameters) -> None:
    """A worker that comes late does not undo what a faster one has written."""
    newer, older, name = State(offset=5, sequential_id=3), State(offset=4, sequential_id=2), NAMES[0]
    parameters.project(name, newer, None, NOW)
    parameters.project(name, older, parameters.read(name), NOW)
    assert parameters.read(name) == summarize(newer, NOW)


def test_a_summary_that_is_none_names_its_remedy(parameters: Parameters, lake: Lake) -> None:
    """It is a cache, and may be deleted."""
    parameters.write(NAMES[0], Summary())
    lake.ssm.put_parameter(Name=f"{lake.prefix}/tables/s0/t", Value="mine", Overwrite=True)
    with pytest.raises(UnreadableData, match="tidelog rebuild makes it again"):
        parameters.read(NAMES[0])


@pytest.mark.parametrize("code", ["ThrottlingException", "TooManyUpdates"])
def test_a_store_that_is_busy_is_waited_for(lake: Lake, monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    """Two chunks of a table end at once; or many tables do, for longer than botocore tries. Not for ever."""
    paused: list[float] = []
    monkeypatch.setattr("tidelog.parameters.time.sleep", paused.append)
    process, write = Process(), Step("put_parameter")
    parameters = Parameters(process.client(lake.ssm), lake.prefix)
    for _ in range(3):
        process.at("before", write, refusal(code))
    assert parameters.write(NAMES[0], Summary()) == 1
    assert len(paused) == 3
    assert 1 < sum(paused) < 4
    for _ in range(4):
        process.at("before", write, refusal(code))
    with pytest.raises(StoreUnreachable, match=code):
        parameters.write(NAMES[0], Summary())


@pytest.mark.parametrize("operation", ["get_parameter", "put_parameter"])
@pytest.mark.parametrize(
    ("code", "kind"), [("InternalServerError", StoreUnreachable), ("AccessDeniedException", AccessDenied)]
)
def test_a_store_that_refuses_is_an_error(lake: Lake, operation: str, code: str, kind: type[Exception]) -> None:
    """That names the table."""
    process = Process()
    process.at("before", Step(operation), refusal(code))
    parameters = Parameters(process.client(lake.ssm), lake.prefix)
    with pytest.raises(kind, match=r"the state of s0\.t"):
        parameters.read(NAMES[0]) if operation == "get_parameter" else parameters.write(NAMES[0], Summary())
