import numpy as np
import pytest
from scipy.optimize import minimize

from models.metrics import Prior, regress


@pytest.mark.parametrize("scale", [0.01, 1.0, 30.0])
@pytest.mark.parametrize("prior", [Prior(), Prior(weight=1e-9), Prior(10.0, 0.04), Prior(0.1, 400.0)])
@pytest.mark.parametrize("distance", [0.0, 1.0, 6.0])
def test_it_ends_where_scipy_ends_wherever_it_starts(scale, prior, distance):
    rng = np.random.default_rng(5)
    events = rng.random(400) < 0.3
    x = scale * (rng.normal(0, 1, 400) + np.where(events, distance, -distance))
    events[:8] = ~events[:8]  # never quite separated
    weights = np.where(events, 0.2, 1.3)

    def loss(beta):
        z = beta[0] * x + beta[1]
        return weights @ (np.logaddexp(0, z) - events * z) + prior.weight / 2 * (beta[0] - prior.slope) ** 2

    found = regress(x, events, weights, -3.0, prior)
    best = minimize(
        loss, np.array([0.1, 0.0]), method="Nelder-Mead", options={"xatol": 1e-10, "fatol": 1e-12, "maxiter": 4000}
    )
    assert loss(found) <= best.fun * (1 + 1e-7)


def test_perfect_separation_ends_with_finite_values():
    x = np.array([-2.0, -1.0, 1.0, 2.0])
    slope, intercept = regress(x, x > 0, np.ones(4), 0.0, Prior(2.0, 1.0))
    assert 2.0 < slope < 3.0
    assert abs(intercept) < 1e-6
