"""The stress: one nuisance at a graded strength, laid on a finished curve, whether simulated or measured.

The simulator mixes all nuisances at random; here one at a time is turned up, so that a table can say from which
strength on it would cost an event. Whatever the nuisance, the ruptures stay in the curve, except in the two that cut
them off and say so.
"""

from __future__ import annotations

from models.stress import nuisances
from models.stress.nuisances import Nuisance, Subject, is_visible, subject_of

__all__ = ["NUISANCES", "Nuisance", "Subject", "is_visible", "subject_of"]

_PERCENT = (5.0, 10.0, 20.0, 40.0, 60.0)

#: Strengths as real files have them (formats.md 5.1, models.simulate.nuisance), and beyond.
NUISANCES: dict[str, Nuisance] = {
    "interference": Nuisance("pN", (5.0, 10.0, 20.0, 40.0, 60.0), nuisances.interfere, adds=True),
    "interference of 100 nm": Nuisance("pN", (5.0, 10.0, 20.0, 40.0, 60.0), nuisances.interfere_shortly, adds=True),
    "interference in noise": Nuisance("sigma", (1.0, 3.0, 10.0, 30.0), nuisances.interfere_in_sigma, adds=True),
    "tilt": Nuisance("pN/100 nm", (3.0, 10.0, 20.0, 40.0, 60.0), nuisances.tilt, adds=True),
    "drift": Nuisance("pN", (10.0, 30.0, 100.0, 300.0), nuisances.drift, adds=True),
    "coloured noise": Nuisance("sigma", (0.5, 1.0, 2.0, 4.0), nuisances.roughen, adds=True),
    "spikes": Nuisance("spikes", (1.0, 5.0, 20.0, 100.0), nuisances.spike),
    "snap-off": Nuisance("pN", (100.0, 300.0, 1000.0, 3000.0), nuisances.adhere),
    "snap-in": Nuisance("pN", (100.0, 1000.0), nuisances.snap_in),
    "retract cut": Nuisance("% gone", _PERCENT, nuisances.cut_share),
    "baseline missing": Nuisance("% left", (20.0, 10.0, 5.0, 2.0), nuisances.cut_close),
    "cut before the last": Nuisance("% of ramp", (1.0, 5.0, 20.0), nuisances.cut_before_last),
    "cut before the only": Nuisance("% of ramp", (1.0, 5.0, 20.0), nuisances.cut_before_only),
    "held tail": Nuisance("%", _PERCENT, nuisances.hold_tail),
    "zero tail": Nuisance("%", _PERCENT, nuisances.zero_tail),
    "garbage tail": Nuisance("%", _PERCENT, nuisances.garbage_tail),
    "contact": Nuisance("% of ramp", (20.0, 40.0, 60.0, 80.0), nuisances.push_longer),
    "all together": Nuisance("%", (25.0, 50.0, 100.0), nuisances.lay_everything, adds=True),
}
