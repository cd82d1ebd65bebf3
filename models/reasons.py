"""The reasons: every word that can stand in an event's ``reasons``, with what it says and what it does to the verdict.

A new reason is one line here, and the place that finds it. A reader's word for what it could not read, and what it had
to assume, stand here too; tests/test_reasons.py holds the list against every place that makes one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Reason:
    """``text`` is for whoever measured the curve, ``effect`` what it does to the verdict.

    ``informs``: none. ``lifts``: a low score does not discard, the curve is reviewed. ``blocks``: there is no score,
    and the curve is reviewed.

    ``origin``: found by the program itself (``found``), noted by a reader beside the curve (``noted``), or a reader's
    word where there is no curve (``unreadable``: the labels of afm_triage_curves_unreadable_total, so they stay few).
    """

    text: str
    effect: Literal["informs", "lifts", "blocks"]
    origin: Literal["found", "noted", "unreadable"] = "found"


def _unreadable(text: str) -> Reason:
    return Reason(text, "blocks", "unreadable")


REASONS: dict[str, Reason] = {
    "score": Reason("the network gave it a score", "informs"),
    # The front-end finds these in the samples (models.frontend).
    "too_short": Reason("too few points to show a rupture", "blocks"),
    "nonfinite": Reason("the file holds numbers that are not finite", "blocks"),
    "constant": Reason("the force never changes", "blocks"),
    "no_calibration": Reason(
        "the spring constant or sensitivity is missing, and this model needs piconewton", "blocks"
    ),
    "orientation": Reason("the retract looks stored the wrong way round", "blocks"),
    # The simulator makes such curves, so one alone is no doubt; a run of them raises an alarm.
    "no_contact": Reason("no push against the surface was found", "informs"),
    "still_attached": Reason("something still pulls at the far end: its rupture is not in the file", "lifts"),
    # Wrong units or a broken detector.
    "noise_out_of_range": Reason("the noise is outside what the model was made for", "lifts"),
    # Peaks are missing.
    "saturated": Reason("the pull is cut off at the end of the detector's range", "lifts"),
    # A reader notes these.
    "text_rule": Reason("a [[text]] table of the configuration said what the file does not", "informs", "noted"),
    "sign_assumed": Reason("the file does not say which way is pulling, so both were judged", "informs", "noted"),
    "columns_assumed": Reason("which column is force and which is distance is a guess", "lifts", "noted"),
    "ends_missing": Reason("part of the retract was never recorded", "lifts", "noted"),  # nor would an event be
    # The judge finds these (deploy.serving, daemon.judging).
    "sign_turned": Reason("what is shown is the curve upside down: that way it scored higher", "informs"),
    "flipped": Reason("upside down the curve looks like an event: the sign of the deflection may be wrong", "lifts"),
    "no_score": Reason("the network gave no finite answer", "blocks"),
    "engine_fault": Reason("the network failed on this curve", "blocks"),
    "no_certificate": Reason("no certificate yet, so nothing is discarded", "lifts"),
    # There is no curve to judge.
    "unreadable": _unreadable("the file looks like a curve, and its reader could not make sense of it"),
    "empty": _unreadable("the file is empty"),
    "truncated": _unreadable("the file is shorter than its own header says, and has stayed so"),
    "zero_tail": _unreadable("the end of the file was never written"),
    "changed": _unreadable("the file was rewritten while it was read, again and again"),
    "vanished": _unreadable("the file has gone"),
    "no_permission": _unreadable("the file may not be read"),
    "no_retract": _unreadable("the file holds no retract"),
    "no_force_channel": _unreadable("the file holds no force"),
    "no_companion": _unreadable("the other wave of the pair never came"),  # ZSnsr to an Asylum Defl
    "foreign_hdf5": _unreadable("the file is HDF5, and force and distance were not found by name"),
    "too_large": _unreadable("the file is larger than what is read"),
    "too_long": _unreadable("the curve has more than 4 million points"),
    "bomb": _unreadable("the file unpacks to more than the limits allow"),
    "timeout": _unreadable("reading the file took too long"),
    "crash": _unreadable("the reader's process died on this file"),
}

#: No score can be made.
BLOCKING = frozenset(word for word, reason in REASONS.items() if reason.effect == "blocks")
#: However low the score, the curve is reviewed.
LIFTING = frozenset(word for word, reason in REASONS.items() if reason.effect == "lifts")
#: What keeps a curve from being discarded.
DOUBTS = BLOCKING | LIFTING
#: What keeps nothing from being discarded.
INFORMING = frozenset(REASONS) - DOUBTS
#: Notes of a reader that are reasons as they stand.
NOTED = frozenset(word for word, reason in REASONS.items() if reason.origin == "noted")
#: Why a file, or one curve of it, cannot be read.
UNREADABLE = frozenset(word for word, reason in REASONS.items() if reason.origin == "unreadable")
