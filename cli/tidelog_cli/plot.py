"""Numbers over time as bars of text."""

from __future__ import annotations

from collections.abc import Sequence

_EIGHTHS = " ▁▂▃▄▅▆▇█"


def bars(values: Sequence[int], first: str, last: str, *, height: int = 4) -> list[str]:
    """Return a plot, line by line: a bar for each value, the greatest one as high as the plot.

    Whatever is more than nothing is seen.

    Args:
        values: none below 0.
        first: what stands under the first bar.
        last: what stands under the last one, if both have room.
        height: in lines.
    """
    top = max(values, default=0)
    eighths = [max(1, round(value * height * 8 / top)) if value else 0 for value in values]
    margin = f"{top:,}"
    lines = []
    for line in range(height):
        below = (height - 1 - line) * 8
        drawn = "".join(_EIGHTHS[min(8, max(0, level - below))] for level in eighths)
        lines.append(f"{margin if line == 0 else '':>{len(margin)}} {drawn}".rstrip())
    under = f"{first}{last:>{len(values) - len(first)}}" if len(values) > len(first) + len(last) else first
    return [*lines, f"{'':>{len(margin)}} {under}"]
