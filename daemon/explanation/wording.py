"""The wording of an explanation: reasons and limits as sentences for whoever measured the curve."""

from __future__ import annotations

from collections.abc import Sequence

_SENTENCES = {
    "too_short": "too few points to show a rupture",
    "nonfinite": "the file holds numbers that are not finite",
    "constant": "the force never changes",
    "no_calibration": "the spring constant or sensitivity is missing, and this model needs piconewton",
    "orientation": "the retract looks stored the wrong way round",
    "no_contact": "no push against the surface was found",
    "still_attached": "something still pulls at the far end: its rupture is not in the file",
    "noise_out_of_range": "the noise is outside what the model was made for",
    "saturated": "the pull is cut off at the end of the detector's range",
    "text_rule": "a [[text]] table of the configuration said what the file does not",
    "sign_assumed": "the file does not say which way is pulling, so both were judged",
    "sign_turned": "what is shown is the curve upside down: that way it scored higher",
    "columns_assumed": "which column is force and which is distance is a guess",
    "flipped": "upside down the curve looks like an event: the sign of the deflection may be wrong",
    "ends_missing": "part of the retract was never recorded",
    "no_score": "the network gave no finite answer",
    "engine_fault": "the network failed on this curve",
    "no_certificate": "no certificate yet, so nothing is discarded",
}


def sentences(reasons: Sequence[str]) -> list[str]:
    """What every reason but the score itself means."""
    return [_SENTENCES.get(reason, reason.replace("_", " ")) for reason in reasons if reason != "score"]


def share(value: float) -> str:
    """``0.97``, ``0.0021``: three digits that count, never rounded to a certainty."""
    if 0.9995 <= value < 1.0:
        return "> 0.999"
    return f"{value:.3g}" if value >= 1e-4 else f"{value:.0e}"
