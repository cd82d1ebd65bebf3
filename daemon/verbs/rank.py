"""`rank`: unlabelled curves in order of what a few labelled ones teach, for features that make no model.

The list is a CSV of path, curve_index and rank score (no probability), best first, as `score --only` and
`evaluate --only` take it. Curves that get no score stand at its end with an empty one: nothing is left out.
"""

from __future__ import annotations

import argparse
import csv
import io
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from daemon.common.errors import BAD_DATA, INPUT_OUTPUT, UserError
from models.files import write_whole

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What cannot be served at full speed can still say what to look at next."""
    parser.add_argument("folders", metavar="DIR", nargs="+", type=Path, help="unlabelled curves to put in order")
    parser.add_argument("--labelled", metavar="DIR", type=Path, action="append", required=True, help="has a labels.csv")
    parser.add_argument(
        "--features", choices=("none", "pca", "autoencoder", "soft-kmeans"), default="autoencoder", help="(autoencoder)"
    )
    parser.add_argument("--head", choices=("logistic", "svm"), default="svm", help="svm has a Gaussian kernel (svm)")
    parser.add_argument("--model", default="shipped", help="whose embedding is used (shipped)")
    parser.add_argument("--seed", metavar="N", type=int, default=1, help="(1)")
    parser.add_argument("--list", metavar="FILE.csv", type=Path, required=True, help="where the order goes")


def run(args: argparse.Namespace) -> int:
    """Exit 0 with the list written, 65 for labels that make no sense or no curve, 69 without scikit-learn."""
    import numpy as np

    from daemon.common.progress import progress
    from daemon.learn.head import Start, embed_all, parent_of, rank, require_sklearn
    from daemon.learn.labelled import collect
    from daemon.reading.ahead import read_curves
    from daemon.sources.existing import find
    from models.heads import embed

    require_sklearn()
    if absent := [folder for folder in args.folders if not folder.exists()]:
        raise UserError(BAD_DATA, f"{absent[0]}: no such file or folder")
    bundle = parent_of(args.model)
    network = Start(parent=bundle).network()
    assert network is not None
    labelled = collect(args.labelled, bundle.profile)
    known = embed(network, labelled.edges[labelled.sure], bundle.profile).astype(np.float64)
    events = labelled.events[labelled.sure]
    if events.all() or not events.any():
        raise UserError(BAD_DATA, "--labelled: curves of both kinds are needed, keep and discard; label some")
    readings = progress(read_curves(find(args.folders)), "reading")
    names, vectors = embed_all(network, readings, bundle.profile)
    if not names:
        raise UserError(BAD_DATA, f"{args.folders[0]}: holds no curve")
    able = np.isfinite(vectors).all(axis=1)
    scores = np.full(len(names), np.nan)
    scores[able] = rank(known, events, vectors[able], args.features, args.head, args.seed)
    _write(args.list, names, scores)
    print(f"{args.list}: {len(names)} curves in order, {int((~able).sum())} of them without a score", file=sys.stderr)
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
