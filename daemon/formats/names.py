"""What a file name alone says: ours, nobody's, or look inside."""

from __future__ import annotations

import re

from daemon.formats import jpk, packed
from daemon.formats.pair import is_second_half

_OURS = (*jpk.SUFFIXES, packed.SUFFIX)
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
    """Why a file of this name is never opened, one of ``daemon.ignored.REASONS``; None for one that may be a curve."""
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
