"""Look-alikes: which curves look like which, from the small drawing that every decision carries.

What the eye goes by on a force curve is where it falls and rises, and by how much, rather than at which distance: a
rupture a little later is the same kind of curve. So a curve is told by its steepest falls and rises, over three widths,
whatever their place, and more faintly by its course. Numpy only; 10,000 curves take half a second, and no second time
as long as the same view of the ledger is asked.
"""

from __future__ import annotations

import threading
from base64 import b64decode
from binascii import Error as NotBase64
from collections.abc import Iterable, Sequence
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from daemon.ledger.view import LedgerView

Floats = NDArray[np.float32]

#: Curves on one sheet: four rows of six fill a screen, and a glance still finds the exception.
SIZE = 24
#: Columns that a drawing is brought to, whatever the raster of its model.
_COLUMNS = 256
#: Columns over which a fall or rise is averaged on either side, and which of them count, the steepest one being 0.
_WIDTHS, _RANKS = (3, 6, 12), (0, 2, 5, 10, 20, 40)
#: Places of the course, and its weight beside the falls: chosen on the labelled real curves.
_PLACES, _COURSE = 16, 0.3
#: Directions in which sheets are told apart.
_DIRECTIONS = 12
#: Curves of which a description is remembered: 20 MB.
_MOST = 100_000


def nearest(view: LedgerView, seq: int, count: int, among: Sequence[int]) -> list[int]:
    """The ``count`` curves of ``among`` that look most like the curve ``seq``, the likest first; never itself.

    Empty where it has no drawing, because it could not be read. Raises UserError 74 where the ledger is damaged.
    """
    others = [other for other in dict.fromkeys(among) if other != seq]
    known, described = _described(view, [seq, *others])
    if not known or known[0] != seq:
        return []
    order = np.argsort(((described[1:] - described[0]) ** 2).sum(axis=1), kind="stable")
    return [known[1:][place] for place in order[:count]]


def sheets(view: LedgerView, seqs: Sequence[int], size: int = SIZE) -> list[list[int]]:
    """All of ``seqs``, each once, on sheets of at most ``size`` curves that look alike; sheets differ by one in size.

    The sheet comes first whose curves stand first in ``seqs``. On a sheet the curves lie in the order in which they
    differ most, so that what is unlike the others is found at its ends. Those without a drawing come last, by
    themselves. Raises UserError 74 where the ledger is damaged.
    """
    wanted = list(dict.fromkeys(seqs))
    known, described = _described(view, wanted)
    rank = {seq: place for place, seq in enumerate(wanted)}
    groups = [[known[place] for place in group] for group in split(described, size)]
    groups.sort(key=lambda group: sum(rank[seq] for seq in group) / len(group))
    has_drawing = set(known)
    rest = [seq for seq in wanted if seq not in has_drawing]
    return groups + [rest[start : start + size] for start in range(0, len(rest), size)]


def describe(drawings: NDArray[np.uint8]) -> Floats:
    """(n, 2, W), lower and upper edge -> (n, 52): distances between rows are how unlike two curves look."""
    course = drawings.astype(np.float32).mean(axis=1)  # (n, W)
    sums = np.cumsum(np.pad(course, ((0, 0), (1, 0))), axis=1, dtype=np.float64)
    parts = []
    for width in _WIDTHS:
        means = (sums[:, width:] - sums[:, :-width]) / width
        falls = (means[:, :-width] - means[:, width:]).astype(np.float32)
        falls.partition([*_RANKS, *(-1 - rank for rank in _RANKS)], axis=1)
        parts += [falls[:, [-1 - rank for rank in _RANKS]], falls[:, list(_RANKS)]]
    parts.append(_COURSE * course.reshape(len(course), _PLACES, -1).mean(axis=2))
    return np.concatenate(parts, axis=1)


def split(described: Floats, size: int) -> list[NDArray[np.int64]]:
    """(n, 52) -> the places of those that go on one sheet, sheet by sheet."""
    return _split(_main(described), np.arange(len(described)), size) if len(described) else []


def _main(described: Floats) -> Floats:
    """(n, 52) -> (n, 12): along the directions in which all of them differ most, which hold nearly all of it."""
    spread = described - described.mean(axis=0)
    main: Floats = np.einsum("ij,jk->ik", spread, np.linalg.eigh(_products(spread))[1][:, -_DIRECTIONS:])
    return main


def _split(described: Floats, places: NDArray[np.int64], size: int) -> list[NDArray[np.int64]]:
    """Halved across the direction in which they differ most, until each half fits on a sheet."""
    some = described[places] - described[places].mean(axis=0)
    along = np.linalg.eigh(_products(some))[1][:, -1]
    places = places[np.argsort(np.einsum("ij,j->i", some, along), kind="stable")]
    count = -(-places.size // size)
    if count == 1:
        return [places]
    middle = round(places.size * (count // 2) / count)
    return _split(described, places[:middle], size) + _split(described, places[middle:], size)


def _products(spread: Floats) -> Floats:
    """(n, d) -> (d, d). Not by ``@``: the threads of its library wait for each other where the service works beside."""
    products: Floats = np.einsum("ij,ik->jk", spread, spread)
    return products


# What was described is remembered for as long as the view of the ledger is there: decisions never change.

_REMEMBERED: WeakKeyDictionary[LedgerView, tuple[str, dict[int, Floats | None]]] = WeakKeyDictionary()
_LOCK = threading.Lock()


def _described(view: LedgerView, seqs: Sequence[int]) -> tuple[list[int], Floats]:
    """Those of ``seqs`` that have a drawing, in order, and the description of each."""
    stream = view.stream
    with _LOCK:
        remembered_of, remembered = _REMEMBERED.get(view, ("", {}))
        if remembered_of != stream or len(remembered) > _MOST:  # another ledger may have been put in its place
            _REMEMBERED[view] = stream, (remembered := {})
        new = [seq for seq in seqs if seq not in remembered]
    if new:
        found = _describe_stored(view, new)
        with _LOCK:
            remembered |= found
    known = [seq for seq in seqs if remembered.get(seq) is not None]
    rows = [row for seq in known if (row := remembered[seq]) is not None]
    return known, np.array(rows, np.float32)


def _describe_stored(view: LedgerView, seqs: Iterable[int]) -> dict[int, Floats | None]:
    events = view.decisions(seqs)
    drawings = {seq: drawing for seq, event in events.items() if (drawing := _drawing(event["data"].get("preview")))}
    found: dict[int, Floats | None] = dict.fromkeys(seqs)
    for length in {len(drawing) for drawing in drawings.values()}:
        some = {seq: drawing for seq, drawing in drawings.items() if len(drawing) == length}
        pictures = np.frombuffer(b"".join(some.values()), np.uint8).reshape(len(some), 2, -1)
        pictures = pictures[:, :, np.arange(_COLUMNS) * pictures.shape[2] // _COLUMNS]
        found |= dict(zip(some, describe(pictures), strict=True))
    return found


def _drawing(told: str | None) -> bytes:
    """The bytes of a drawing; none where the curve could not be read, or another program has written the event."""
    try:
        drawing = b64decode(told or "", validate=True)
    except NotBase64:
        return b""
    return drawing if len(drawing) % 2 == 0 else b""
