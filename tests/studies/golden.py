"""`make study TOPIC=golden`: the golden events that ship, models/golden/events.zip, from public data.

Only what may be passed on under its licence (MIT, BSD, Apache-2.0 without more) and is labelled keep. Of each curve the
force alone is kept, in single precision, as a compact copy has it; which way up it pulls is settled here, so that no
doubt about its sign or columns keeps it from being lost. A member is called after the experiment and the fingerprint
that the curve has in the file of its publisher.
"""

from __future__ import annotations

import io
import zipfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

from daemon.common.errors import BAD_DATA, UserError
from daemon.common.options import Option
from daemon.formats.afmcurve import compact, pack
from daemon.judging.judge import load_model
from daemon.learn.evidence import LabelledCurve, curves_of, fingerprint_of, read_labels, refuse
from daemon.learn.lessons import GOLDEN
from deploy.classifier import EngineRequest
from models.files import write_whole
from models.frontend import turned

#: Where files lie whose licence allows to pass them on, and nothing is asked for in return.
FREE = ("open/fodis_", "open/polybrush_")


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """A labelled folder, and where the events go."""

    data: Annotated[Path, Option("the collection: a labels.csv and the folders it names", "DIR", is_positional=True)]
    out: Annotated[Path | None, Option("another file than the one that ships", "FILE")] = None


def run(options: Options) -> int:
    folders = read_labels([options.data])
    chosen = [
        replace(one, rows=tuple(row for row in one.rows if row.path.startswith(FREE) and row.label == "keep"))
        for one in folders
    ]
    problems: list[str] = []
    curves = list(curves_of(chosen, problems))
    refuse(problems)
    if not curves:
        raise UserError(BAD_DATA, f"{options.data} holds none of {', '.join(FREE)}; name the collection")
    whole = io.BytesIO()
    counts: Counter[str] = Counter()
    with zipfile.ZipFile(whole, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as made:
        for name, content in _members(curves):
            counts[name.rpartition("-")[0]] += 1
            made.writestr(zipfile.ZipInfo(name, (2000, 1, 1, 0, 0, 0)), content, zipfile.ZIP_DEFLATED)
    write_whole(options.out or GOLDEN, whole.getvalue())
    print("\n".join(f"{experiment}: {count}" for experiment, count in sorted(counts.items())))
    print(f"{sum(counts.values())} events, {len(whole.getvalue()):,} bytes")
    return 0


def _members(curves: list[LabelledCurve]) -> Iterator[tuple[str, bytes]]:
    model = load_model("shipped", EngineRequest("cpu", precision="fp32"))
    for item in curves:
        bare = replace(item.curve, force=compact(item.curve.force), distance=None, approach_force=None, notes=())
        ways = [bare, turned(bare)]
        logits = [one.logit or 0.0 for one in model.judge(ways)]
        yield f"{item.row.experiment}-{fingerprint_of(item.curve)}.afmcurve", pack(ways[logits[1] > logits[0]])
