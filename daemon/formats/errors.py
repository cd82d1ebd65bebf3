"""Why a file is no curve, no curve yet, or a curve that cannot be read: what readers raise.

The words for what cannot be read stand in models.reasons, with those of every other reason.
"""

from __future__ import annotations

from models.reasons import UNREADABLE

#: Only a reason to wait: text whose last row has no line end may still be in the writing, or never get one. It is read
#: in the end, so nothing is ever unreadable for it.
UNENDED = "unended"
#: Only a reason to wait, as long as it takes: where the file lies does not answer. No patience runs out over that.
AWAY = "away"

#: What a file can be that is nobody's curve though its name might be one's. Labels of afm_triage_files_ignored_total.
NO_CURVES = frozenset(
    {
        "image",  # a scan of the surface, or a picture
        "table",  # numbers over time or temperature
    }
)


class NotACurve(Exception):
    """This file is whole or not, but no force curve: nobody waits for it. ``args[0]`` is one of NO_CURVES."""

    @property
    def reason(self) -> str:
        return self.args[0] if self.args and self.args[0] in NO_CURVES else "unclaimed"


class Unreadable(Exception):
    """This file (or curve) will never be readable as it is. ``args[0]`` is a reason of UNREADABLE."""

    @property
    def reason(self) -> str:
        return self.args[0] if self.args and self.args[0] in UNREADABLE else "unreadable"


class Unfinished(Exception):
    """This file is not whole yet; ``args[0]`` is the reason it gets if it stays so."""

    @property
    def reason(self) -> str:
        return self.args[0] if self.args and self.args[0] in UNREADABLE | {UNENDED, AWAY} else "truncated"


class Unreached(Unfinished):
    """The system gives none of its bytes, now. That says nothing of the file, nor of any of its curves."""
