"""Tables on a terminal."""

from collections.abc import Collection, Sequence


def aligned(table: Sequence[Sequence[str]], left: Collection[int] = (0,)) -> list[str]:
    """Format rows as lines of aligned columns: text to the left, numbers to the right.

    Args:
        table: rows of the same number of cells; at least one.
        left: columns aligned to the left, counted from 0.

    Raises:
        ValueError: a row has more or fewer cells than another.
    """
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if i in left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in table
    ]
