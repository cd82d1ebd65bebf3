"""`rank`: unlabelled curves in order of what a few labelled ones teach, for features that make no model.

The list is a CSV of path, curve_index and rank score (no probability), best first, as `score --only` and
`evaluate --only` take it. Curves that get no score stand at its end with an empty one: nothing is left out.
"""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from daemon.common.errors import BAD_DATA, INPUT_OUTPUT, UserError
from daemon.common.options import Option
from models.files import write_whole

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    folders: Annotated[tuple[Path, ...], Option("unlabelled curves to put in order", "DIR", is_positional=True)]
    labelled: Annotated[tuple[Path, ...], Option("has a labels.csv", "DIR")]
    features: Annotated[Literal["none", "pca", "autoencoder", "soft-kmeans"], Option("")] = "autoencoder"
    head: Annotated[Literal["logistic", "svm"], Option("svm has a Gaussian kernel")] = "svm"
    model: Annotated[str, Option("whose embedding is used")] = "shipped"
    seed: Annotated[int, Option("", "N")] = 1
    list: Annotated[Path, Option("where the order goes", "FILE.csv")]


def run(options: Options) -> int:
    """Exit 0 with the list written, 65 for labels that make no sense or no curve, 69 without scikit-learn."""
    import numpy as np

    from daemon.common.progress import progress
    from daemon.learn.head import Start, embed_all, parent_of, rank, require_sklearn
    from daemon.learn.labelled import collect
    from daemon.reading.ahead import read_curves
    from daemon.sources.existing import find
    from models.heads import embed

    require_sklearn()
    if absent := [folder for folder in options.folders if not folder.exists()]:
        raise UserError(BAD_DATA, f"{absent[0]}: no such file or folder")
    bundle = parent_of(options.model)
    network = Start(parent=bundle).network()
    assert network is not None
    labelled = collect(options.labelled, bundle.profile)
    known = embed(network, labelled.edges[labelled.sure], bundle.profile).astype(np.float64)
    events = labelled.events[labelled.sure]
    if events.all() or not events.any():
        raise UserError(BAD_DATA, "--labelled: curves of both kinds are needed, keep and discard; label some")
    readings = progress(read_curves(find(options.folders)), "reading")
    names, vectors = embed_all(network, readings, bundle.profile)
    if not names:
        raise UserError(BAD_DATA, f"{options.folders[0]}: holds no curve")
    able = np.isfinite(vectors).all(axis=1)
    scores = np.full(len(names), np.nan)
    scores[able] = rank(known, events, vectors[able], options.features, options.head, options.seed)
    _write(options.list, names, scores)
    print(
        f"{options.list}: {len(names)} curves in order, {int((~able).sum())} of them without a score", file=sys.stderr
    )
    return 0


def _write(file: Path, names: Sequence[tuple[str, int]], scores: NDArray[np.float64]) -> None:
    """Best first, those without a score last; whole or not at all."""
    import numpy as np

    order = np.argsort(-scores, kind="stable")  # NaN sorts last
    table = io.StringIO(newline="")
    rows = csv.writer(table)
    rows.writerow(("path", "curve_index", "score"))
    rows.writerows((*names[place], "" if np.isnan(scores[place]) else f"{scores[place]:.6g}") for place in order)
    try:
        write_whole(file, table.getvalue().encode())
    except OSError as error:
        raise UserError(INPUT_OUTPUT, f"--list {file}: {error.strerror}") from None
