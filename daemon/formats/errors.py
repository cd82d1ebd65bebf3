"""Why a file is no curve, no curve yet, or a curve that cannot be read: what readers raise.

Reasons are short snake_case words; they are labels of afm_triage_curves_unreadable_total, so the set
is closed and small (UNREADABLE below).
"""

from __future__ import annotations

#: Every reason a file (or one curve of it) can be unreadable for. Anything else becomes "unreadable".
UNREADABLE = frozenset(
    {
        "unreadable",  # claimed by a reader, which could not make sense of it
        "empty",
        "truncated",  # shorter than its own header says, for longer than we wait
        "zero_tail",  # right size, but the end was never written
        "changed",  # rewritten while it was read, again and again
        "vanished",
        "no_permission",
        "no_retract",
        "no_force_channel",
        "no_companion",  # an Asylum Defl wave whose ZSnsr wave never came
        "foreign_hdf5",  # HDF5, but force and distance were not found by name
        "too_large",
        "too_long",  # more than 4 million points
        "bomb",  # unpacks to more than the limits allow
        "timeout",  # the reader was ended after its time limit
        "crash",  # the reader process died on this file
    }
)


#: Only a reason to wait: text whose last row has no line end may still be in the writing, or never get one. It is read
#: in the end, so nothing is ever unreadable for it.
UNENDED = "unended"

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
        return self.args[0] if self.args and self.args[0] in UNREADABLE | {UNENDED} else "truncated"
