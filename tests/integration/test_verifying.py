"""Verification: whatever is planted in a lake is found and named, and of a good lake there is nothing to say."""

from __future__ import annotations

import gzip
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.conftest import Aws, CreateDatabase, make_lake
from tests.tide import Tide
from tidelog.events import Event, What, fold
from tidelog.lake import event_key
from tidelog.parameters import summarize
from tidelog.records import decode, encode, sealed
from tidelog.state import State
from tidelog.stores import Folder
from tidelog.tables import TableName
from tidelog.verdict import Verified

NAME = TableName("public", "t")
ROWS = 60
SEGMENT, LEDGER = "data/public.t/", "ledger/public.t/"
change = msgspec.structs.replace


class Good:
    """A good lake, its database, and the lake's objects for a test to change.

    Args:
        tide: the database and the lake.
        root: an empty folder.
    """

    pending = 0
    """The transaction of a row that is not in the lake yet."""

    def __init__(self, tide: Tide, root: Path) -> None:
        self._tide = tide
        self._root = root
        self.objects = {key: tide.lake.body(key) for key in tide.lake.keys("")}
        self.summary = tide.parameters.read(NAME)

    def keys(self, prefix: str) -> list[str]:
        """Return the keys under a prefix, in order."""
        return sorted(key for key in self.objects if key.startswith(prefix))

    @property
    def events(self) -> list[Event]:
        """The ledger."""
        return [decode(self.objects[key]) for key in self.keys(LEDGER)]

    def verify(self, **more: Any) -> Verified:
        """Verify the objects as they are now."""
        for key, body in self.objects.items():
            path = self._root / "lake" / key
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(body)
        return self._tide.verify(store=Folder(self._root / "lake"), summary=lambda: self.summary, **more)


@pytest.fixture(scope="module")
def filled(create_database: CreateDatabase, aws: Aws) -> Iterator[Tide]:
    """A table in a good lake: a snapshot and three increments."""
    with create_database() as database:
        tide = Tide(database, make_lake(aws.s3, aws.ssm))
        tide.run(
            "CREATE TABLE t (id int PRIMARY KEY, v int, name text)",
            f"INSERT INTO t SELECT n, 0, 'name ' || n FROM generate_series(1, {ROWS}) n",
        )
        tide.ingest()
        for v in (1, 2, 3):
            tide.database.pass_horizon()
            tide.run(f"UPDATE t SET v = {v} WHERE id <= 5", f"INSERT INTO t VALUES ({100 + v}, {v}, 'ä')")
            tide.ingest()
        tide.run("DELETE FROM t WHERE id = 50")
        [[Good.pending]] = tide.run("INSERT INTO t VALUES (999, 0, 'later') RETURNING xmin::text::bigint")
        assert right(tide.verify(), rows=ROWS + 2, pending=1, gone=1)
        yield tide


@pytest.fixture
def good(filled: Tide, tmp_path: Path) -> Good:
    """That lake, to be changed."""
    return Good(filled, tmp_path)


def right(found: Verified, **expected: int) -> bool:
    """Hold that nothing is wrong, and some numbers."""
    assert (found.verdict, found.findings, found.keys, *found.remedies()) == ("right", (), ())
    assert {name: getattr(found, name) for name in expected} == expected
    return found.is_right


def rewritten(edit: Callable[[bytes], bytes]) -> Callable[[Good], object]:
    """Return what edits the lines of the last segment."""

    def plant(good: Good) -> None:
        key = good.keys(SEGMENT)[-1]
        good.objects[key] = gzip.compress(edit(gzip.decompress(good.objects[key])))

    return plant


def deleted(number: int, prefix: str) -> Callable[[Good], object]:
    """Return what deletes an object, counted through those under a prefix."""
    return lambda good: good.objects.pop(good.keys(prefix)[number])


def added(key: str, number: int | None = None) -> Callable[[Good], object]:
    """Return what puts something else at a key, or at one of those under a prefix."""
    return lambda good: good.objects.update({key if number is None else good.keys(key)[number]: b"x"})


def resealed(offset: int, edit: Callable[[Event], Event]) -> Callable[[Good], object]:
    """Return what edits an event and gives it the digest of what it is then."""

    def plant(good: Good) -> None:
        good.objects[event_key(NAME, offset)] = encode(sealed(edit(good.events[offset - 1])))

    return plant


def edited(offset: int, before: str, after: str) -> Callable[[Good], object]:
    """Return what edits the text of an event."""

    def plant(good: Good) -> None:
        key = event_key(NAME, offset)
        text = good.objects[key].decode()
        assert re.search(before, text)
        good.objects[key] = re.sub(before, after, text, count=1).encode()

    return plant


def forged(offset: int, edit: Callable[[Any], What]) -> Callable[[Good], object]:
    """Return what edits an event and makes all that follow anew, so that every digest and every state fits."""

    def plant(good: Good) -> None:
        state = State()
        for event in good.events:
            what = edit(event.what) if event.offset == offset else event.what
            made = sealed(change(event, what=what, state=fold(state, what), previous=state.digest))
            good.objects[event_key(NAME, event.offset)] = encode(made)
            state = made.state
        good.summary = summarize(state, datetime.now(UTC))

    return plant


def reading(**fields: Any) -> Callable[[Any], What]:
    """Return what edits the reading of an increment; functions are given the value as it is."""

    def edit(what: Any) -> What:
        new = {name: to(getattr(what.reading, name)) for name, to in fields.items()}
        made: What = change(what, reading=change(what.reading, **new))
        return made

    return edit


def leaf(**fields: Any) -> Callable[[Any], What]:
    """Return what edits the first relation of the reading of an increment."""
    return reading(
        leaves=lambda leaves: (change(leaves[0], **{n: to(getattr(leaves[0], n)) for n, to in fields.items()}),)
    )


def summary(**fields: object) -> Callable[[Good], object]:
    """Return what edits the summary."""

    def plant(good: Good) -> None:
        assert good.summary
        good.summary = change(good.summary, **fields)

    return plant


LOST = "foreign .*no event names it: tidelog has not written it, or an event is missing"
PLANTED: dict[str, tuple[Callable[[Good], object], list[str], dict[str, str]]] = {
    "a missing line": (
        rewritten(lambda text: text.replace(b'{"id":103,"v":3,"name":"\xc3\xa4"}\n', b"")),
        ["segment .*i000000000003.*: its bytes are not .*; it has 5 lines where its event says 6"],
        {"103": "missing"},
    ),
    "a changed digit": (
        rewritten(lambda text: text.replace(b'{"id":4,"v":3', b'{"id":4,"v":7')),
        ["segment .*i000000000003.*: its bytes are not those that were written"],
        {"4": "different"},
    ),
    "a line without its key": (
        rewritten(lambda text: text.replace(b'{"id":4,', b'{"ix":4,')),
        ["segment .*i000000000003.*: its bytes are not those that were written"],
        {"4": "different"},
    ),
    "a deleted object": (deleted(1, SEGMENT), [r"segment .*i000000000001.*: it is not there"], {"101": "missing"}),
    "the last object deleted": (
        deleted(-1, SEGMENT),
        ["segment .*: it is not there. If the worker that has committed event 4 has died"],
        {"103": "missing"} | {f"{n}": "different" for n in range(1, 6)},
    ),
    "no gzip": (
        added("data/public.t/", 1),
        ["segment .*: its compressed data break off; its bytes are not .*; it has 1 bytes .*; .* 0 lines .*; .*text"],
        {"101": "missing"},
    ),
    "an added object": (
        added("data/public.t/dt=2026-11-23/000001-00000000000000009999-i000000000009.jsonl.gz"),
        [LOST],
        {},
    ),
    "an added name": (added("data/public.t/notes.txt"), ["foreign .*notes.txt: no event names it"], {}),
    "a name in the ledger": (
        added("ledger/public.t/1.json"),
        ["foreign .*/1.json: it is not the name of an event"],
        {},
    ),
    "no document": (added("schema/public.t/0123456789abcdef.json"), ["foreign .*it is no document of that name"], {}),
    "a deleted document": (deleted(0, "schema/public.t/"), ["document .*there is no such document"], {}),
    "an edited document": (
        lambda good: good.objects.update(
            {key: good.objects[key].replace(b'"name": "v"', b'"name": "w"') for key in good.keys("schema/")}
        ),
        ["document .*the fingerprint of its content is"],
        {},
    ),
    "an edited event": (
        edited(2, '"rows": 6', '"rows": 7'),
        ["event .*2.json: .*has edited it", LOST],
        {"101": "missing"},
    ),
    "an edited digest": (
        edited(2, '"digest": "[0-9a-f]', '"digest": "x'),
        ["event .*2.json: .*has edited it", LOST],
        {"101": "missing"},
    ),
    "no event": (added(LEDGER, 2), ["event .*3.json: it is not an event", LOST], {"102": "missing"}),
    "the last event edited": (edited(4, '"rows": 6', '"rows": 5'), ["event .*4.json: .*has edited it", LOST], {}),
    "a removed event": (deleted(1, LEDGER), ["event .*2.json: there is no such event", LOST], {"101": "missing"}),
    "the last event removed": (
        deleted(-1, LEDGER),
        ["summary public.t: its parameter is ahead of the ledger", LOST],
        {},
    ),
    "an event sealed anew": (
        resealed(2, lambda event: change(event, run="mine")),
        ["event .*3.json: it does not follow on the event before it"],
        {},
    ),
    "a reading sealed anew": (
        resealed(3, lambda event: change(event, what=leaf(start=lambda start: start + 1)(event.what))),
        ["event .*4.json: it does not follow", "coverage .*3.json: .*a gap of 1 transactions"],
        {},
    ),
    "an event of another table": (
        resealed(2, lambda event: change(event, table="public.u")),
        ["event .*2.json: it is event 2 of public.u", LOST],
        {"101": "missing"},
    ),
    "the last event sealed anew": (
        resealed(4, lambda event: change(event, state=change(event.state, horizon=event.state.horizon - 1))),
        ["event .*4.json: its state is not what", "summary .*does not say what event 4 does: horizon"],
        {},
    ),
    "a sequential id skipped": (
        forged(3, lambda what: change(what, sequential_id=what.sequential_id + 1)),
        [
            "event .*3.json: sequential id 3 follows on 1",
            "event .*3.json: .*is not where its segment belongs",
            "event .*4.json: sequential id 3 follows on 3",
        ],
        {},
    ),
    "a gap": (forged(3, leaf(start=lambda start: start + 3)), ["coverage .*3.json: .*a gap of 3 transactions"], {}),
    "an overlap": (forged(3, leaf(start=lambda _: 0)), ["coverage .*3.json: .*rows of before come twice"], {}),
    "a transaction left out": (
        forged(3, leaf(ahead=lambda _: (2**31,))),
        ["coverage .*3.json: of relation .* leaves out 2147483648"],
        {},
    ),
    "a horizon set back": (
        forged(3, reading(horizon=lambda _: 3)),
        [
            "coverage .*3.json: its horizon 3 lies before",
            "event .*3.json: .*is not where its segment belongs",
            "coverage .*4.json: .*a gap of",
        ],
        {},
    ),
    "a horizon moved on": (
        forged(4, reading(horizon=lambda _: Good.pending + 1)),
        ["event .*4.json: .*is not where its segment belongs"],
        {"999": "missing"},
    ),
    "a bound made up": (
        forged(3, leaf(bounded=lambda _: True)),
        ["coverage .*3.json: .*was read past the bound None, where none counts"],
        {},
    ),
    "an id of which nothing was read": (
        forged(4, reading(ahead=lambda _: (Good.pending,))),
        [],
        {"999": "missing"},
    ),
    "a relation left out": (forged(3, reading(leaves=lambda _: ())), ["coverage .*4.json: .*a gap of"], {}),
    "another database": (
        forged(3, reading(database=lambda database: change(database, name="x", oid=1))),
        ["coverage .*3.json: it has read another database", "coverage .*4.json: it has read another database"],
        {},
    ),
    "the length of a segment": (
        forged(3, lambda what: change(what, segment=change(what.segment, rows=9, bytes=1, text_bytes=2))),
        ["segment .*2.*: it has .* bytes where its event says 1; .*lines where .* 9; .*bytes of text where .*2"],
        {},
    ),
    "a summary ahead": (
        summary(offset=5),
        ["summary public.t: its parameter is ahead of the ledger: it tells of event 5"],
        {},
    ),
    "a summary that lies": (
        summary(sequential_id=7),
        ["summary public.t: its parameter does not say what event 4 does: sequential_id"],
        {},
    ),
}


@pytest.mark.parametrize("name", PLANTED)
def test_what_is_planted_is_found_and_named(good: Good, name: str) -> None:
    """One thing at a time: what is wrong is said of the object that it is in, and of the keys of rows that differ."""
    plant, findings, keys = PLANTED[name]
    plant(good)
    found = good.verify()
    said = [f"{finding.kind} {finding}" for finding in found.findings]
    assert not found.is_right
    assert len([*found.remedies()]) >= len({finding.kind for finding in found.findings})
    for expected in findings:
        assert any(re.match(expected, each) for each in said), (expected, said)
    assert len(said) == len(findings), said
    assert {each.key: each.how for each in found.keys} == keys
