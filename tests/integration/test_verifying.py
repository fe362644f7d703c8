"""Verification: whatever is planted in a lake is found and named, and of a good lake there is nothing to say."""

from __future__ import annotations

import gzip
import re
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from tests.conftest import Aws, CreateDatabase, make_lake
from tests.integration.test_backfills import asked, backfill
from tests.integration.test_time_bounds import BOUNDED, set_bound
from tests.stack.test_local import ODD
from tests.tide import LIMITS, Tide
from tidelog.events import Event, What
from tidelog.folding import fold
from tidelog.lake import event_key
from tidelog.parameters import summarize
from tidelog.records import decode, encode, sealed
from tidelog.state import State
from tidelog.stores import Folder
from tidelog.tables import TableName
from tidelog.verification.verdict import Verified

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


def test_a_hidden_row_is_a_difference_until_it_is_swept(tide: Tide) -> None:
    """It is said which row, why, and that a sweep is the remedy; after it there is nothing to say."""
    tide.run(
        "CREATE TABLE t (id int PRIMARY KEY, v int, updated_at timestamptz)",
        "INSERT INTO t SELECT n, 0, now() - interval '2 days' FROM generate_series(1, 2000) n",
        "INSERT INTO t VALUES (2001, 0, now())",
        "CREATE INDEX ON t (updated_at)",
        "VACUUM ANALYZE t",
    )
    tide.ingest(limits=BOUNDED)
    set_bound(tide)
    tide.sweep(limits=BOUNDED)
    tide.read_chunks(limits=BOUNDED)
    tide.run("UPDATE t SET v = 1 WHERE id = 7", "UPDATE t SET v = 1, updated_at = now() WHERE id = 2001")
    tide.database.pass_horizon()
    tide.ingest(limits=BOUNDED)
    found = tide.verify()
    assert (found.verdict, found.causes) == ("rows differ", {"hidden": 1})
    assert [(key.key, key.how, key.cause) for key in found.keys] == [("7", "different", "hidden")]
    assert [*found.remedies()] == ["1 row is hidden by bounds in time, which no sweep has read: tidelog sweep public.t"]
    tide.sweep(limits=BOUNDED)
    assert tide.verify().causes == {"hidden": 1}  # The sweep's chunk is not read yet.
    tide.read_chunks(limits=BOUNDED)
    assert right(tide.verify(), rows=2001)


def test_rows_of_chunks_that_are_not_read_are_pending(tide: Tide) -> None:
    """Whichever are done; what was written meanwhile is pending too."""
    tide.run(
        "CREATE TABLE t (a text, b int, v text, PRIMARY KEY (b, a)) PARTITION BY LIST (b)",
        "CREATE TABLE t1 PARTITION OF t FOR VALUES IN (1)",
        "CREATE TABLE t2 PARTITION OF t FOR VALUES IN (2)",
        "INSERT INTO t SELECT n || 'ß\"', 1 + n % 2, repeat('x', 500) FROM generate_series(1, 200) n",
    )
    limits = replace(LIMITS, chunk_bytes=3 * 8192)
    tide.database.pass_horizon()
    tide.ingest(limits=limits)
    assert right(tide.verify(), rows=0, pending=200)
    chunks = tide.outbox.take()
    tide.read_chunks(chunks[1::2], limits=limits)
    done = right_rows(tide.verify())
    assert 0 < done < 200
    tide.run("UPDATE t SET v = 'y' WHERE a LIKE '1%'", "INSERT INTO t VALUES ('new', 2, '')")
    tide.ingest(limits=limits)
    assert right_rows(tide.verify()) > 100
    tide.read_chunks(chunks, limits=limits)
    assert right(tide.verify(), rows=201, pending=0)


def right_rows(found: Verified) -> int:
    """Return how many rows were compared, of which none differs."""
    assert right(found)
    return found.rows or 0


def test_every_type_and_every_odd_table_is_compared_byte_for_byte(tide: Tide) -> None:
    """Those with a key by it; the others line by line, as often as each is there."""
    tide.run(*(statement for text in ODD.values() for statement in text.split(";") if statement.strip()))
    tide.run(
        "CREATE TABLE keys (a timestamptz, b numeric, c bytea, d text, v jsonb, PRIMARY KEY (d, a, b, c))",
        "INSERT INTO keys SELECT now() + n * interval '1 s', n / 7.0, sha256(n::text::bytea), E'a\\t\\n\"\\\\' || n, "
        "jsonb_build_object('n', n) FROM generate_series(1, 50) n",
    )
    tables = [*ODD, "public.keys"]
    for table in tables:
        tide.ingest(table)
        found = tide.verify(table)
        assert right(found)
        rows = tide.database.one(f"SELECT count(*) FROM ONLY {TableName.parse(table).sql}")
        assert (found.rows, found.keyed) == (rows or 3, table == "public.keys")
    tide.run("DELETE FROM keyless WHERE a IS NULL", "UPDATE keys SET v = '{}' WHERE b < 1")
    [key] = tide.lake.keys("data/public.keyless/")
    tide.lake.s3.put_object(Bucket=tide.lake.bucket, Key=key, Body=gzip.compress(b'{"a":1}\n{"a":null}\n'))
    found = tide.verify("public.keyless")
    assert (found.rows, found.causes, found.keys) == (2, {"": 1}, ())
    tide.lake.empty()


def test_altered_lines_are_compared_as_they_would_be_now(tide: Tide) -> None:
    """Columns by their numbers; where that can't be done they are outdated, as an event says, and a backfill helps."""
    limits = replace(LIMITS, chunk_bytes=8192)
    tide.run(
        "CREATE TABLE t (id int, v text, gone int, PRIMARY KEY (id))",
        "INSERT INTO t SELECT n, repeat('x', 100), n FROM generate_series(1, 100) n",
    )
    tide.ingest()
    tide.run("ALTER TABLE t DROP gone", "ALTER TABLE t ADD later int", "ALTER TABLE t RENAME id TO number")
    assert right(tide.verify(), rows=100)
    tide.run("INSERT INTO t VALUES (101, 'new', 1)")
    tide.ingest(limits=limits)
    assert right(tide.verify(), rows=101)
    tide.run("ALTER TABLE t ADD given text DEFAULT 'given'", "UPDATE t SET later = 2 WHERE number = 5")
    tide.ingest(limits=limits)
    found = tide.verify()
    assert (found.verdict, found.causes, found.rows) == ("rows are outdated", {"outdated": 100}, 101)
    assert [*found.remedies()] == ["100 rows are as before the table was altered: tidelog backfill public.t --all"]
    tide.database.pass_horizon()  # A plan's chunks read what is below it.
    backfill(tide, asked(all=True), limits=limits)
    tide.read_chunks(limits=limits)
    assert right(tide.verify(), rows=101)


class KilledError(BaseException):
    """The process is gone."""


def test_one_that_was_killed_goes_on_where_it_was(filled: Tide, tmp_path: Path) -> None:
    """Wherever that happens: no segment is read again that was done, and what has happened since is pending."""
    deaths = 0
    for steps in range(1, 40):
        left = steps

        def tell(*_: object) -> None:
            nonlocal left
            left -= 1
            if not left:
                raise KilledError

        try:
            found = filled.verify(work=tmp_path, tell=tell)
        except KilledError:
            deaths += 1
            continue
        break
    assert deaths > 3
    assert right(found, rows=ROWS + 2, pending=1, gone=1)


def test_it_is_silent_while_writers_and_workers_go_on(tide: Tide) -> None:
    """Whatever is written and ingested meanwhile, by transactions of any length: what was read is what is there."""
    tide.run("CREATE TABLE t (id int PRIMARY KEY, v int)", "INSERT INTO t SELECT n, 0 FROM generate_series(1, 500) n")
    tide.ingest()
    stop = threading.Event()

    def write(number: int) -> None:
        with tide.database.session() as session:
            while not stop.is_set():
                session.run("BEGIN")
                for _ in range(3):
                    session.run(f"UPDATE t SET v = v + 1 WHERE id % 9 = {number} AND random() < 0.1")
                    session.run(f"DELETE FROM t WHERE id % 9 = {number} AND random() < 0.01")
                    session.run(f"INSERT INTO t SELECT (random() * 1e8)::int * 9 + {number}, 0 ON CONFLICT DO NOTHING")
                session.run("COMMIT")

    writers = [threading.Thread(target=write, args=(number,)) for number in (1, 2, 3)]
    for writer in writers:
        writer.start()
    try:
        for _ in range(4):
            tide.ingest()
            assert right(tide.verify())
    finally:
        stop.set()
        for writer in writers:
            writer.join()
    tide.database.pass_horizon()
    tide.ingest()
    assert right(tide.verify(), pending=0)


def test_json_that_few_readers_take_and_odd_names_of_a_key_are_verified(tide: Tide) -> None:
    """Half a surrogate pair, brackets in thousands, headings with quotes: the server has them all."""
    tide.run(
        'CREATE TABLE t ("a""b" int, "c\\d" int, v json, PRIMARY KEY ("a""b", "c\\d"))',
        """INSERT INTO t VALUES (1, 1, '"\\ud800"'), (2, 1, (repeat('[', 2000) || repeat(']', 2000))::json)""",
    )
    tide.ingest()
    found = tide.verify()
    assert (found.is_right, found.rows, found.gone) == (True, 2, 0), found
    tide.run("ALTER TABLE t RENAME v TO w", 'DELETE FROM t WHERE "a""b" = 1')
    tide.ingest()
    found = tide.verify()
    assert (found.is_right, found.rows, found.gone) == (True, 1, 1), found


def test_a_table_that_has_lost_its_last_column_is_right(tide: Tide) -> None:
    """Its old lines are as empty as its rows."""
    tide.run("CREATE TABLE t (a int)", "INSERT INTO t VALUES (1), (2)")
    tide.ingest()
    tide.run("ALTER TABLE t DROP COLUMN a")
    tide.ingest()
    assert tide.verify().is_right
