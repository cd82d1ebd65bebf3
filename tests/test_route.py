"""A curve enters no more modules, and takes no more forms, than it did."""

import pytest

from tests.route import CURVE, HELD_FORMS, HELD_MODULES, trace


@pytest.mark.slow
def test_the_route_of_a_curve_does_not_grow():
    modules, forms = trace(CURVE)
    assert {"daemon.pipeline", "daemon.formats.jpk", "daemon.ledger", "models.frontend"} <= modules.keys()
    assert {"models.curve.Curve", "daemon.judging.Decision"} <= forms.keys()
    assert len(modules) <= HELD_MODULES, f"a curve enters more modules than before (make route): {sorted(modules)}"
    assert len(forms) <= HELD_FORMS, f"a curve takes more forms than before (make route): {sorted(forms)}"
