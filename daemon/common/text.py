"""Text for people: quantities short and with their unit, the same on every screen; names clean; rows in columns."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

#: A mark a verdict, so that a screen without colour says the same.
MARKS: Mapping[str, str] = {"keep": "●", "review": "◐", "discard": "○"}


def page(name: str) -> str:
    """Where a page of the documentation lies on this computer, with or without the repository: ``page("files")``."""
    return str(Path(__file__).parents[2] / "deploy" / "docs" / f"{name}.md")


def duration(seconds: float) -> str:
    """``42 s``, ``13 min``, ``2 h 13 min``, ``5 d 4 h``."""
    whole = max(0, int(seconds))
    for size, unit, smaller, its in ((86400, "d", 3600, "h"), (3600, "h", 60, "min")):
        if whole >= size:
            rest = whole % size // smaller
            return f"{whole // size} {unit}" + (f" {rest} {its}" if rest else "")
    return f"{whole // 60} min" if whole >= 60 else f"{whole} s"


def latency(seconds: float | None) -> str:
    """``0.4 ms``, ``18 ms``, ``1.2 s``."""
    if seconds is None:
        return "–"
    if seconds >= 1:
        return f"{seconds:.1f} s"
    return f"{seconds * 1e3:.1f} ms" if seconds < 0.01 else f"{seconds * 1e3:.0f} ms"


def rate(per_s: float) -> str:
    """``9.8/s`` or, when that is little, ``12/min``."""
    if per_s >= 1:
        return f"{per_s:.1f}/s" if per_s < 100 else f"{per_s:.0f}/s"
    return f"{per_s * 60:.0f}/min" if per_s > 0 else "–"


def many(count: int, what: str) -> str:
    """``1 curve``, ``2,900 curves``."""
    return f"{count:,} {what}" + ("" if count == 1 else "s")


def share(part: int, whole: int) -> str:
    return f"{part / whole:.1%}" if whole else "–"


def score(value: float | None) -> str:
    """Six cells: ``0.973``, ``0.042``, ``0.0032``, ``3.2e-5``: two digits that say something, also of a discard.

    Never rounded up to a certainty; a dash when no score could be made.
    """
    if value is None:
        return "  –   "
    if value >= 0.01 or value <= 0:
        told = "0" if value <= 0 else f"{min(value, 0.999):.3f}" if value < 1 else "1.000"
    else:
        told = f"{value:.4f}" if value >= 0.00095 else f"{value:.1e}".replace("e-0", "e-")
    return told.ljust(6)


def score_in_words(value: float | None) -> str:
    """``0.973``, ``> 0.999``, ``0.0032``, ``3.3e-5`` with a true minus, ``no score``: in a sentence."""
    if value is None:
        return "no score"
    if 0.9995 <= value < 1:
        return "> 0.999"
    return f"{value:.3g}" if value >= 1e-4 or value <= 0 else f"{value:.1e}".replace("e-0", "e-").replace("-", "\u2212")


def size(count_bytes: float) -> str:
    """``3.2 GB``."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if count_bytes < 1000:
            return f"{count_bytes:.0f} {unit}" if unit == "bytes" or count_bytes >= 100 else f"{count_bytes:.1f} {unit}"
        count_bytes /= 1000
    return f"{count_bytes:.1f} TB"


_BARS = " ▁▂▃▄▅▆▇█"


def bars(values: Sequence[float], width: int) -> str:
    """The last ``width`` values as a row of bars, the tallest of them full; nothing is drawn for zero."""
    shown = values[-width:]
    tallest = max(shown, default=0.0)
    if tallest <= 0:
        return " " * width
    steps = [0 if value <= 0 else max(1, round(value / tallest * 8)) for value in shown]
    return "".join(_BARS[step] for step in steps).rjust(width)


def first_line(error: BaseException) -> str:
    """An error's name and the first line of what it says; some libraries go on for pages."""
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0]}"[:300]


def clean(text: str) -> str:
    """The same text with every character that is not printable (escape codes, line ends) shown as ``�``.

    File names and reasons are written by others, and nothing in them may steer a terminal.
    """
    return "".join(char if char.isprintable() else "�" for char in text)


def align(rows: Sequence[Sequence[str]], left: Collection[int] = (0,)) -> list[str]:
    """Rows of cells as lines for a terminal, each column as wide as its widest cell.

    The columns of ``left`` begin at their left edge, numbers end at their right one.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    justified = (
        [cell.ljust(width) if place in left else cell.rjust(width) for place, (cell, width) in enumerate(pairs)]
        for pairs in (list(zip(row, widths, strict=True)) for row in rows)
    )
    return ["  ".join(cells).rstrip() for cells in justified]
