"""Partitions: how those of now differ from those of before, in words."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from tidelog.partitions import Partitions

NAMES = st.dictionaries(st.integers(1, 9), st.sampled_from(["s.a", "s.b", "s.c"]), max_size=5)


def test_what_came_what_went_and_what_is_called_otherwise_is_told() -> None:
    """Detached is what is still in the database."""
    older, newer = Partitions("s.t", {1: "s.a", 2: "s.b", 3: "s.c"}), Partitions("s.t", {3: "s.d", 4: "s.e"})
    assert newer.difference(older, {2}) == (
        "partition s.e attached; partition s.a dropped; partition s.b detached; partition s.c renamed to s.d"
    )


def test_many_partitions_are_not_all_told() -> None:
    """The event stays small."""
    newer = Partitions("s.t", {number: f"s.p{number}" for number in range(117)})
    words = newer.difference(Partitions("s.t", {}), ())
    assert words.startswith("partition s.p0 attached; partition s.p1 attached; ")
    assert words.endswith("partition s.p19 attached … and 97 more")


@given(NAMES, NAMES)
def test_two_sets_share_a_fingerprint_only_if_nothing_is_told_of_them(
    one: dict[int, str], other: dict[int, str]
) -> None:
    """In whatever order they are listed; and what is written reads back."""
    newer, older = Partitions("s.t", one), Partitions("s.t", dict(reversed(other.items())))
    assert (newer.fingerprint == older.fingerprint) == (newer.difference(older, ()) == "")
    assert msgspec.json.decode(msgspec.json.encode(newer), type=Partitions) == newer
