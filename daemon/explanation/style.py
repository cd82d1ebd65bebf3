"""The colours of an explanation: ink on paper, and warmth for heat alone."""

from __future__ import annotations

PAPER, INK, QUIET, FAINT = "#ffffff", "#1f2933", "#5b6770", "#b8c1ca"
COLD, WARM = "#8fa3b8", "#b3200f"
#: Distinct in grey and for the colour-blind (after Okabe & Ito 2008).
VERDICT = {"keep": "#00795a", "review": "#c77800", "discard": "#6b7280"}
