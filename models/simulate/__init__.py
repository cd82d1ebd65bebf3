"""Force curves from physics, with the truth about them: what the shipped model was trained on.

``simulate`` draws curves of a seed; the modules behind it hold one subject each, with the source of every range:
``instrument``, ``surface`` (contact, adhesion), ``chains`` and ``bonds`` (elasticity, Bell-Evans), ``molecules`` and
``bodies`` (events), ``nuisance`` (noise, baseline), ``background`` (which of these together), ``visible`` (what may be
called an event), ``scene`` (one curve), ``stream`` (a seed's row of them).
"""

from models.simulate.ruptures import Rupture
from models.simulate.stream import Simulated, simulate

__all__ = ["Rupture", "Simulated", "simulate"]
