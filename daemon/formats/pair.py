"""The pair: Asylum saves one curve as two waves, ``…Defl.ibw`` and ``…ZSnsr.ibw``; everything hangs on the first.

What copies such files may change the case of a name, and not of both halves alike. So any mix of case makes a half,
what stands before must be the same, and where a folder holds several spellings of the other half the usual one counts.
"""

from __future__ import annotations

import os
from collections.abc import Container, Iterator
from functools import lru_cache
from itertools import product
from pathlib import Path

_FIRST, _SECOND = "Defl.ibw", "ZSnsr.ibw"


def is_first_half(name: str) -> bool:
    """``Line0000Point0001Defl.ibw``: the half that is read, with the other one."""
    return name.lower().endswith(_FIRST.lower())


def is_second_half(name: str) -> bool:
    """``Line0000Point0001ZSnsr.ibw``: the half that is read with the first, and is no curve by itself."""
    return name.lower().endswith(_SECOND.lower())


def other_names(name: str) -> Iterator[str]:
    """Every name that the other half of this one may have, the usual one first; none for what is no half."""
    own = _FIRST if is_first_half(name) else _SECOND if is_second_half(name) else ""
    if own:
        stem, ending = name[: -len(own)], name[-len(own) :]
        yield from (stem + other for other in _other_endings(ending))


def pick_other(name: str, there: Container[str]) -> str | None:
    """The other half of ``name`` among the names of its folder."""
    return next((other for other in other_names(name) if other in there), None)


def find_other(file: Path) -> Path | None:
    """The other half of a file, where it lies beside it; the folder is only listed when it has no usual name."""
    usual = next(other_names(file.name), None)
    if usual is None:
        return None
    if (likely := file.with_name(usual)).exists():
        return likely
    try:
        found = pick_other(file.name, frozenset(os.listdir(file.parent)))
    except OSError:
        return None
    return None if found is None else file.with_name(found)


@lru_cache(maxsize=512)  # there are 2^7 spellings of the one and 2^8 of the other
def _other_endings(ending: str) -> tuple[str, ...]:
    """As Asylum's program writes it, or all in the case of ``ending``; then every other mix."""
    other = _SECOND if ending.lower() == _FIRST.lower() else _FIRST
    alike = other.lower() if ending.islower() else other.upper() if ending.isupper() else other
    mixes = ("".join(letters) for letters in product(*({letter.lower(), letter.upper()} for letter in other)))
    return tuple(dict.fromkeys((alike, other, other.lower(), other.upper(), *sorted(mixes))))
