"""Force curves from physics, with the truth about them: what the shipped model was trained on.

``simulate`` draws curves of a seed; the modules behind it hold one subject each, with the source of every range:
``instrument``, ``surface`` (contact, adhesion), ``chains`` and ``bonds`` (elasticity, Bell-Evans), ``molecules``
(events), ``nuisance`` (noise, baseline), ``visible`` (what may be called an event), ``scene`` (all together).
"""

from models.simulate.molecules import Rupture
from models.simulate.stream import Simulated, simulate

__all__ = ["Rupture", "Simulated", "simulate"]
