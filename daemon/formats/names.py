"""What a file name alone says: ours, nobody's, or look inside."""

from __future__ import annotations

import re

from daemon.formats import asylum, jpk, packed

_OURS = (*jpk.SUFFIXES, packed.SUFFIX)
#: Names of curves that may also be of something else: `.ibw`, `.jpk`, `.nid` and `.tiff` of images too.
_LOOK_INSIDE = re.compile(r"\.(?:txt|csv|tsv|tab|dat|asc|spm|h5|hdf5|ibw|jpk|nid|tiff|\d{3,4})$", re.IGNORECASE)
#: Programs that write under another name first: browsers, rsync, Syncthing, editors, network clients.
_TEMPORARY = re.compile(
    r"^[.~#]|^Thumbs\.db$|^desktop\.ini$|~$|#$|[._]tmp\d*$|\.sb-[0-9a-f]+-\w+$|\.(?:temp|part|partial|crdownload|download|"
    r"filepart|swp|swx|lock|lck|bak|done|sync|ffs_tmp|aria2|opdownload)\d*$",
    re.IGNORECASE,
)
#: Suffixes that are never text or numbers of a force curve, and formats that are counted but not read.
_NOT_OURS = re.compile(
    r"\.(?:png|jpe?g|gif|bmp|svg|pdf|docx?|xlsx?|pptx?|odt|ods|md|rst|html?|xml|json|jsonl|ya?ml|toml|ini|cfg|log|py|m|mat|"
    r"ipynb|exe|dll|so|zip|gz|bz2|xz|7z|tar|rar|mp4|avi|mov|db|sqlite(?:-\w+)?|gwy|pxp|npy|npz|pt|pth|pkl|pickle|safetensors|"
    r"ardf|pfc|nhf|mdt|ps-ppt|jpk-force-config|layout|bak)$",
    re.IGNORECASE,
)
_LABELS = "labels.csv"


def claim(name: str) -> bool | None:
    """Whether a file of this name (no folders) is a curve file: True, False, or None: its first bytes must tell.

    The ``ZSnsr`` half of an Asylum pair is False: it is read with its ``Defl`` half.
    """
    if _TEMPORARY.search(name) or name.lower() == _LABELS or asylum.is_companion(name):
        return False
    if name.lower().endswith(_OURS):
        return True
    return False if _NOT_OURS.search(name) else None


def is_likely(name: str) -> bool:
    """Whether an *empty* file of this name is a curve that never came rather than some other program's marker."""
    return claim(name) is True or _LOOK_INSIDE.search(name) is not None
