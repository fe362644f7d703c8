"""The configuration document: what it says of each table, and every mistake that a person can make in it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.test_tables import NAMES
from tidelog.configuration import KEYS, TABLE_KEYS, Configuration
from tidelog.errors import InvalidSetting
from tidelog.selection import Left, Selection
from tidelog.tables import Column, Relation, Table, TableName, Type
from tidelog.tablesettings import TableSettings, configured
from tidelog_cli.config import read_document

CUSTOMERS = TableName("public", "customers")
WHOLE = """
include = ["public.*", "shop.orders"]
exclude = ["public.*_archive"]

[tables."public.customers"]
exclude_columns = ["email", "phone"]
timestamp_columns = ["occurred_at"]
strategy = "timestamp"
look_back_seconds = 7200
chunk_megabytes = 256
"""


def section(keys: str, name: str = "public.customers") -> Configuration:
    """Return a document of one section."""
    return Configuration.parse(f"[tables.{json.dumps(name)}]\n{keys}")


def test_a_document_says_which_tables_are_taken_and_how_each_is_read() -> None:
    """Sizes in bytes; a table without a section has the defaults."""
    configuration = Configuration.parse(WHOLE)
    assert configuration.selection(Selection.parse("a.b", "c.d")) == Selection(
        ("public.*", "shop.orders"), ("public.*_archive",)
    )
    settings = configuration.table(CUSTOMERS)
    assert (settings.exclude_columns, settings.timestamp_columns) == (("email", "phone"), ("occurred_at",))
    assert (settings.strategy, settings.look_back, settings.chunk_bytes) == ("timestamp", 7200, 256 * 2**20)
    assert configuration.table(TableName("public", "staff")) == TableSettings()


def test_what_it_does_not_say_is_as_the_stack_says() -> None:
    """An empty document changes nothing; one of the lists alone leaves the other."""
    default = Selection.parse("a.b", "c.d")
    assert Configuration.parse("# nothing\n").selection(default) == default
    assert Configuration.parse('include = ["x.*"]').selection(default) == Selection(("x.*",), ("c.d",))
    assert Configuration.parse("exclude = []").selection(default) == Selection(("a.b",), ())


def test_of_several_sections_that_meet_a_table_later_ones_win_key_by_key() -> None:
    """Whichever is the more exact one; an empty list is a value like any other."""
    configuration = Configuration.parse("""
        [tables."public.*"]
        exclude_columns = ["email"]
        look_back_seconds = 60
        [tables."public.customers"]
        exclude_columns = []
        strategy = "xmin"
        [tables."*.cust?mers"]
        look_back_seconds = 0
    """)
    settings = configuration.table(CUSTOMERS)
    assert (settings.exclude_columns, settings.strategy, settings.look_back) == ((), "xmin", 0)
    assert {key: (where.name, where.exact) for key, where in settings.sections.items()} == {
        "exclude_columns": ('[tables."public.customers"]', True),
        "strategy": ('[tables."public.customers"]', True),
        "look_back_seconds": ('[tables."*.cust?mers"]', False),
    }
    assert configuration.table(TableName("public", "staff")).exclude_columns == ("email",)
    assert configuration.table(TableName("shop", "staff")) == TableSettings()


MISTAKES = [
    ("include = [\n", "it is not TOML: Invalid value (at the end, line 1). Mend that line"),
    ('include = ["a.*"]\n\nexclude "b.*"', "it is not TOML: Expected '=' after a key in a key/value pair (at line 3"),
    ("x = " + "[" * 5000, "it is not TOML"),
    ('include = "public.*"', 'include = "public.*" must be a list of names and patterns: write include = ["public.*"]'),
    ("include = []", "include = [] must be a list of names and patterns: it takes no table"),
    ("exclude = true", "exclude = true must be a list of names and patterns"),
    ('include = ["a.b", 7]', "7 is not text"),
    ('include = ["a.b", "a.b"]', '"a.b" stands there twice'),
    ('include = ["orders"]', '"orders" is neither a table name nor a pattern: write schema.table'),
    ('include = ["a.b,c.d"]', '"a.b,c.d" has a comma: write each name as a text of its own'),
    ('exclude = ["a.* "]', '"a.* " has white space around it'),
    ("exclude = ['a.\"b*']", "has a quote that is not closed"),
    ('exclude = [""]', '"" is neither a table name nor a pattern'),
    ('includes = ["a.*"]', "includes is no setting: did you mean include?"),
    ("[table.x]", "table is no setting: did you mean tables?"),
    ("everything = 1", "everything is no setting: there are include, exclude, tables"),
    ('strategy = "xmin"', "strategy is no setting at the top: it stands in a section, such as [tables."),
    ("tables = 5", 'tables = 5 must be sections: write [tables."public.orders"]'),
    ('[tables]\n"public.x" = 5', 'tables."public.x" = 5 must be a section: write [tables."public.x"]'),
    (
        '[tables.public.x]\nstrategy = "xmin"',
        '[tables.public.x] is a section within a section: write [tables."public.x"]',
    ),
    ('[tables."orders"]', '[tables."orders"]: "orders" is neither a table name nor a pattern'),
    ('[tables."a.b"]\n[tables."a.b"]', "it is not TOML: Cannot declare"),
    ('[tables."a.b"]\n[tables.\'"a".b\']', "the table has another section: put them together"),
]


@pytest.mark.parametrize(("text", "words"), MISTAKES)
def test_a_mistake_is_told_by_key_value_and_remedy(text: str, words: str) -> None:
    """In one line."""
    with pytest.raises(InvalidSetting) as refused:
        Configuration.parse(text)
    assert words in str(refused.value)
    assert str(refused.value).startswith("read the configuration: ")
    assert "\n" not in str(refused.value)


WRONG_KEYS = [
    ('exlude_columns = ["email"]', "exlude_columns is no setting: did you mean exclude_columns?"),
    ("lookback = 5", "lookback is no setting: did you mean look_back_seconds?"),
    ("chunk_bytes = 5", "chunk_bytes is no setting: did you mean chunk_megabytes?"),
    ("colour = 5", "colour is no setting: there are exclude_columns, timestamp_columns, strategy, look_back_seconds"),
    ('include = ["a.b"]', "include is no setting of a section: it stands at the top, before the first section"),
    ('exclude_columns = "email"', 'must be a list of columns: write exclude_columns = ["email"]'),
    ("exclude_columns = [5]", "exclude_columns = [5] must be a list of columns: 5 is not text"),
    ('exclude_columns = [["a"]]', '["a"] is not text'),
    ('exclude_columns = ["a", "b", "a"]', '"a" stands there twice'),
    ('exclude_columns = [""]', '"" can be no column\'s name'),
    (f'exclude_columns = ["{"é" * 32}"]', "can be no column's name"),
    (f'timestamp_columns = ["a{chr(92)}u0000"]', "can be no column's name"),
    ("timestamp_columns = 2026-11-23", "must be a list of columns"),
    ("strategy = 5", 'strategy = 5 must be "timestamp" or "xmin"'),
    ('strategy = "ctid"', 'strategy = "ctid" must be "timestamp" or "xmin": it is neither'),
    ("look_back_seconds = -1", "look_back_seconds = -1 must be a whole number from 0 to 604800: it is out of range"),
    ("look_back_seconds = 604801", "it is out of range"),
    ("look_back_seconds = 1.5", "look_back_seconds = 1.5 must be a whole number"),
    ("look_back_seconds = true", "look_back_seconds = true must be a whole number"),
    ('look_back_seconds = "60"', 'look_back_seconds = "60" must be a whole number'),
    ("chunk_megabytes = 0", "chunk_megabytes = 0 must be a whole number from 1 on: it is out of range"),
    ("chunk_megabytes = nan", "must be a whole number"),
]


@pytest.mark.parametrize(("keys", "words"), WRONG_KEYS)
def test_a_mistake_in_a_section_names_the_section(keys: str, words: str) -> None:
    """As it is written."""
    with pytest.raises(InvalidSetting) as refused:
        section(keys)
    assert str(refused.value).startswith('read the configuration: [tables."public.customers"] ')
    assert words in str(refused.value)


@pytest.mark.parametrize(
    "keys", ["look_back_seconds = 0", "look_back_seconds = 604800", "chunk_megabytes = 1", "exclude_columns = []", ""]
)
def test_the_ends_of_a_range_belong_to_it(keys: str) -> None:
    """So does a section that says nothing."""
    section(keys)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"x = ", "it is not TOML"),
        (b"\xff", "it is not UTF-8 text: invalid start byte at byte 0. Save it as UTF-8"),
        (b"x = 1", "x is no setting"),
        (b"#" * 8193, "it has 8,193 bytes, and Parameter Store takes 8,192"),
        ("é".encode() * 4097, "it has 8,194 bytes"),
    ],
)
def test_a_file_that_cannot_be_used_is_named(tmp_path: Path, content: bytes, words: str) -> None:
    """Before anything is pushed or deployed."""
    file = tmp_path / "tidelog.toml"
    file.write_bytes(content)
    with pytest.raises(InvalidSetting) as refused:
        read_document(file)
    assert str(refused.value).startswith(f"read {file}: {words}")


def test_a_file_may_come_from_another_system(tmp_path: Path) -> None:
    """With its mark at the begin, and its ends of lines."""
    file = tmp_path / "tidelog.toml"
    file.write_bytes(b'\xef\xbb\xbfinclude = [\r\n"a.*",\r\n]\r\n')
    assert Configuration.parse(read_document(file)).lists == {"include": ("a.*",)}


WORDS = st.sampled_from([*KEYS, *TABLE_KEYS, "tables", "public", '"public.x"', "=", "[", "]", ".", '"', "\n", "1", ","])


@given(st.text() | st.lists(WORDS).map(" ".join))
def test_any_text_is_read_or_refused(text: str) -> None:
    """Nothing else is ever raised."""
    try:
        Configuration.parse(text)
    except InvalidSetting as refused:
        assert refused.reason  # noqa: PT017 - either way is right


@given(st.lists(NAMES, min_size=1, max_size=4, unique=True), st.data())
def test_a_section_is_about_the_table_of_its_name_and_no_other(names: list[TableName], data: st.DataObject) -> None:
    """Whatever is in the name, but the wild cards."""
    names = [name for name in names if not set("*?") & set(str(name)) and str(name).isprintable()]
    look_backs = {name: data.draw(st.integers(0, 604800)) for name in names}
    text = "\n".join(
        f"[tables.{json.dumps(str(name), ensure_ascii=False)}]\nlook_back_seconds = {seconds}"
        for name, seconds in look_backs.items()
    )
    configuration = Configuration.parse(text)
    assert {name: configuration.table(name).look_back for name in names} == look_backs
    assert configuration.table(TableName("another", "table")) == TableSettings()


def test_a_section_for_a_table_that_is_not_there_is_told_with_the_nearest() -> None:
    """A misspelt name must not leave its columns unprotected in silence; a pattern may meet nothing."""
    relations = [Relation("public", "customers", "r"), Relation("shop", "Odd Name", "v")]
    text = """
        [tables."public.custmers"]
        [tables."public.customers"]
        [tables.'shop."Odd Name"']
        [tables."elsewhere.*"]
    """
    assert Configuration.parse(text).unmet(relations) == (
        Left("public.custmers", '[tables."public.custmers"]: no such table: did you mean public.customers?'),
    )


def test_a_difference_is_told_line_by_line() -> None:
    """Key by key, and the order of sections where it has changed."""
    older = Configuration.parse('include = ["a.*"]\n[tables."a.b"]\nstrategy = "xmin"\n[tables."a.*"]\n')
    newer = Configuration.parse('[tables."a.*"]\n[tables."a.b"]\nexclude_columns = ["x", "y"]\nstrategy = "xmin"')
    assert newer.difference(older) == [
        "include: a.* → not set",
        '[tables."a.b"] exclude_columns: not set → x, y',
        "the order of the sections",
    ]
    assert newer.difference(newer) == []


TEXT, DATE, TIMESTAMPTZ = 25, 1082, 1184


def table(*, key: tuple[str, ...] = ("id",)) -> Table:
    """Return a table of customers."""
    types = {"id": TEXT, "email": TEXT, "born": DATE, "occurred_at": TIMESTAMPTZ, "updated_at": TIMESTAMPTZ}
    names = {TEXT: "text", DATE: "date", TIMESTAMPTZ: "timestamp with time zone"}
    columns = tuple(Column(name, kind, names[kind]) for name, kind in types.items())
    return Table(
        1,
        "public",
        "customers",
        "r",
        columns,
        key,
        leaves=(),
        types=tuple(Type(oid, name, "b") for oid, name in names.items()),
    )


def seen(keys: str, name: str = "public.customers") -> Table:
    """Return the table as it is under a section."""
    return configured(table(), section(keys, name).table(CUSTOMERS))


def test_an_excluded_column_is_not_there_at_all() -> None:
    """Neither in the schema document nor among the timestamp columns."""
    left = seen('exclude_columns = ["email", "updated_at"]')
    assert [column.name for column in left.document().columns] == ["id", "born", "occurred_at"]
    assert (left.timestamp_columns, tuple(left.times)) == ((), ("born", "occurred_at"))


def test_timestamp_columns_take_the_place_of_those_found_by_name() -> None:
    """In the order in which they are named; an empty list is none."""
    assert seen("").timestamp_columns == ("updated_at",)
    assert seen('timestamp_columns = ["occurred_at", "born"]').timestamp_columns == ("occurred_at", "born")
    assert seen("timestamp_columns = []").timestamp_columns == ()


def test_of_a_pattern_columns_that_a_table_has_not_are_passed_over() -> None:
    """Where none is left, the timestamp columns are found by name."""
    left = seen('exclude_columns = ["email", "fax"]\ntimestamp_columns = ["at", "occurred_at"]', "public.*")
    assert [column.name for column in left.columns] == ["id", "born", "occurred_at", "updated_at"]
    assert left.timestamp_columns == ("occurred_at",)
    assert seen('timestamp_columns = ["at"]', "public.*").timestamp_columns == ("updated_at",)


MISFITS: list[tuple[str, str, str]] = [
    (
        'exclude_columns = ["emial"]',
        "public.customers",
        "exclude_columns: it has no column emial. Did you mean email? ",
    ),
    (
        'exclude_columns = ["fax"]',
        "public.customers",
        "exclude_columns: it has no column fax. Mend the configuration: ",
    ),
    ('exclude_columns = ["id"]', "public.*", "exclude_columns: id is part of its primary key. Leave the table out"),
    ('timestamp_columns = ["ocurred_at"]', "public.customers", "timestamp_columns: it has no column ocurred_at. Did "),
    ('timestamp_columns = ["email"]', "public.*", "timestamp_columns: email is of type text, and not date, timestamp"),
    (
        'exclude_columns = ["born"]\ntimestamp_columns = ["born"]',
        "public.customers",
        "timestamp_columns: born is one of its exclude_columns",
    ),
]


@pytest.mark.parametrize(("keys", "name", "words"), MISFITS)
def test_what_does_not_fit_a_table_is_refused(keys: str, name: str, words: str) -> None:
    """By table, section and key: a misspelt privacy setting must fail loudly."""
    with pytest.raises(InvalidSetting) as refused:
        seen(keys, name)
    assert str(refused.value).startswith(f'read public.customers: [tables."{name}"] {words}')
