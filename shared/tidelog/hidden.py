"""Row versions that bounds in time have hidden: which they are, by the id of their transaction, and as SQL."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import accumulate

import msgspec

from tidelog.quoting import identifier, literal


class Hidden(msgspec.Struct, frozen=True):
    """Row versions of some relations that no window has read, since it looked only at those past a bound in time.

    Transaction ids are divided into ranges. Of a range with a bound, a row version is hidden if none of the columns is
    at or past it, NULL being neither; of the other ranges none is.
    """

    leaves: tuple[int, ...]
    """Oids of the relations."""
    columns: tuple[str, ...]
    """The timestamp columns of the bounds; where there is none, all row versions of a range with a bound are hidden."""
    numbers: tuple[int, ...]
    """Of the columns within the table: another column of the same name is none of them."""
    bounds: tuple[str, ...]
    ranges: tuple[int, ...]
    """The first id of the first range, and the length of each."""
    places: tuple[int, ...]
    """For each range the place of its bound, counted from 1; 0 where it has none."""

    @property
    def first(self) -> int:
        """The first id."""
        return self.ranges[0]

    def condition(self, row: str, next_xid: int, types: Mapping[str, str]) -> str:
        """Return the row versions as SQL.

        Args:
            row: the row's alias.
            next_xid: the id that `age` counts back from; no range lies more than 2**31 - 1 before it.
            types: of the columns.
        """
        ends = list(accumulate(self.ranges))[1:]
        # The older a row version, the greater its age: ranges from the last to the first, each from its smallest age
        # on, and behind the first one nothing.
        ages = [*(next_xid - end + 1 for end in reversed(ends)), next_xid - self.first + 1]
        places = [*reversed(self.places), 0]
        place = f"({_array(places, 'int')})[width_bucket(age({row}.xmin), {_array(ages, 'int')})]"
        known = f"coalesce({place}, 0) > 0"
        if not self.columns:
            return known
        past = " OR ".join(
            f"{row}.{identifier(column)} >= ({_array(self.bounds, types[column])})[{place}]" for column in self.columns
        )
        return f"{known} AND ({past}) IS NOT TRUE"


class Unseen(msgspec.Struct, frozen=True):
    """What is hidden in one relation.

    Attributes:
        hidden: row versions, none of them in two.
        types: of their columns.
    """

    hidden: tuple[Hidden, ...]
    types: Mapping[str, str]

    def condition(self, row: str, next_xid: int) -> str:
        """Return the row versions as SQL."""
        parts = (each.condition(row, next_xid, self.types) for each in self.hidden)
        return f"({' OR '.join(f'({part})' for part in parts)})"


def _array(values: Iterable[object], kind: str) -> str:
    items = ",".join(f'"{value}"' if isinstance(value, str) else str(value) for value in values)
    return f"{literal('{' + items + '}')}::{kind}[]"
