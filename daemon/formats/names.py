"""What a file name alone says: ours, nobody's, or look inside."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Container, Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from pathlib import Path

from daemon.formats import afmcurve, jpk

# ---- The pair: Asylum saves one curve as two waves, ``…Defl.ibw`` and ``…ZSnsr.ibw``; everything hangs on the first.
#
# What copies such files may change the case of a name, and not of both halves alike. So any mix of case makes a
# half, what stands before must be the same, and where a folder holds several spellings of the other half the
# usual one counts.

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


# ---- What a file name alone says: ours, nobody's, or look inside.

_OURS = (*jpk.SUFFIXES, afmcurve.SUFFIX)
#: Names of curves that may also be of something else: `.ibw`, `.jpk`, `.nid` and `.tiff` of images too.
_LOOK_INSIDE = re.compile(
    r"\.(?:(?:txt|csv|tsv|tab|dat|asc|out|curves)(?:\.gz)?|spm|h5|hdf5|ibw|jpk|nid|tiff|\d{3,4})$", re.IGNORECASE
)
#: Formats that show their own end, whether their names are clear or not; what else is looked into may be text.
_SHOWS_ITS_END = re.compile(r"\.(?:spm|ibw|jpk|nid|tiff?|\d{3,4})$", re.IGNORECASE)
_GZIP = ".gz"
#: Programs that write under another name first: browsers, rsync, Syncthing, editors, network clients.
_TEMPORARY = re.compile(
    r"^[.~#]|^Thumbs\.db$|^desktop\.ini$|~$|#$|[._]tmp\d*$|\.sb-[0-9a-f]+-\w+$|\.(?:temp|part|partial|crdownload|download|"
    r"filepart|swp|swx|lock|lck|bak|done|sync|ffs_tmp|aria2|opdownload)\d*$",
    re.IGNORECASE,
)
#: Suffixes that are never text or numbers of a force curve, and formats that are counted but not read.
_NOT_OURS = re.compile(
    r"\.(?:png|jpe?g|gif|bmp|svg|pdf|docx?|xlsx|pptx?|odt|ods|md|rst|html?|xml|json|jsonl|ya?ml|toml|ini|cfg|log|py|m|mat|"
    r"ipynb|exe|dll|so|zip|gz|bz2|xz|7z|tar|rar|mp4|avi|mov|db|sqlite(?:-\w+)?|gwy|pxp|npy|npz|pt|pth|pkl|pickle|safetensors|"
    r"ardf|pfc|nhf|mdt|ps-ppt|jpk-force-config|layout|bak|s\d+p)$",
    re.IGNORECASE,
)
#: Of these, the pictures: what a camera, a screen or a scan has made, and what programs for images write.
_IMAGES = re.compile(r"\.(?:png|jpe?g|gif|bmp|svg|gwy)$", re.IGNORECASE)
_SENTINEL = re.compile(r".\.done$")
_LABELS = "labels.csv"


def claim(name: str) -> bool | None:
    """Whether a file of this name (no folders) is a curve file: True, False, or None: its first bytes must tell.

    The ``ZSnsr`` half of an Asylum pair is False: it is read with its ``Defl`` half.
    """
    if why_ignored(name) is not None:
        return False
    return True if name.lower().endswith(_OURS) else None


def why_ignored(name: str) -> str | None:
    """Why a file of this name is never opened, one of sources/ignored.REASONS; None for one that may be a curve."""
    by_kind = {
        "sentinel": _SENTINEL.search(name),
        "temporary": _TEMPORARY.search(name),
        "companion": is_second_half(name),
        "table": name.lower() == _LABELS,
    }
    if (kind := next((kind for kind, holds in by_kind.items() if holds), None)) is not None:
        return kind
    inner = name[: -len(_GZIP)] if name.lower().endswith(_GZIP) else name
    if inner != name and "." in inner and not inner.lower().endswith(_OURS) and not _NOT_OURS.search(inner):
        return None  # text may come compressed
    if name.lower().endswith(_OURS) or not _NOT_OURS.search(name):
        return None
    return "image" if _IMAGES.search(name) else "unclaimed"


def is_likely(name: str) -> bool:
    """Whether an *empty* file of this name is a curve that never came rather than some other program's marker."""
    return claim(name) is True or _LOOK_INSIDE.search(name) is not None


def may_be_text(name: str) -> bool:
    """Whether a file of this name may be text, which does not show its own end."""
    return claim(name) is None and _SHOWS_ITS_END.search(name) is None


# ---- What a file's name alone says: a curve, half a curve, a sentinel, or nothing of ours.

#: Copying programs and editors write under these names and rename when done.
_TEMPORARY_PREFIXES = (".", "~")
_TEMPORARY_SUFFIXES = (
    "~", ".tmp", ".temp", ".part", ".partial", ".filepart", ".crdownload", ".download", ".swp", ".swx", ".lock"
)  # fmt: skip
_NAMES_SENTINEL = ".done"
#: One of these holds hundreds of curves and may take minutes to write.
_MAPS = (".jpk-force-map", ".jpk-qi-data", ".jpk-qi-series")


@dataclass(frozen=True, slots=True)
class Naming:
    """The readers' word on names: ``claim(name)`` True, False (never ours) or None (look inside); ``quiet_s(name)``.

    ``why(name)``: for what is never ours, one of the reasons of ``daemon.sources.ignored``.
    """

    claim: Callable[[str], bool | None]
    quiet_s: Callable[[str], float]
    why: Callable[[str], str] = lambda name: "unclaimed"

    def passes_over(self, name: str) -> str | None:
        """Why a file of this name is not looked at; None for one that may be a curve."""
        if is_temporary(name):
            return "temporary"
        if is_second_half(name):
            return "companion"
        if sentinel_target(name) is not None:
            return "sentinel"
        return self.why(name) if self.claim(name) is False else None


def is_temporary(name: str) -> bool:
    """A name under which something else is still writing."""
    return name.startswith(_TEMPORARY_PREFIXES) or name.lower().endswith(_TEMPORARY_SUFFIXES)


def sentinel_target(name: str) -> str | None:
    """``X.done`` -> ``X``, the file it declares finished; None for any other name."""
    return (
        name[: -len(_NAMES_SENTINEL)] if name.endswith(_NAMES_SENTINEL) and len(name) > len(_NAMES_SENTINEL) else None
    )


def is_map(name: str) -> bool:
    """A file of many curves by its suffix: written over minutes."""
    return name.lower().endswith(_MAPS)


def event_path(path: str) -> str:
    """A relative path as events carry it: always valid UTF-8, whatever bytes the name is made of."""
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
