"""`rank`: curves in the order in which a head on few labels would look at them.

Of a state the flagged curves that nobody has labelled, as its review page orders them; or unlabelled curves of folders,
by what labelled folders teach, also on features and with a head that make no model.

The list is a CSV of path, curve_index and rank_score (no probability), best first, as `score --only` and
`evaluate --only` take it. Curves that get no score stand at its end with an empty one: nothing is left out.
"""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

from daemon.common.errors import BAD_DATA, INPUT_OUTPUT, USAGE, UserError
from daemon.common.options import Option
from daemon.config import Flags, Keys, load
from models.files import write_whole


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    folders: Annotated[
        tuple[Path, ...], Option("unlabelled curves to put in order; none: those of a state", "DIR", is_positional=True)
    ] = ()
    service: Annotated[Flags, Keys("state", "instrument")]
    labelled: Annotated[tuple[Path, ...], Option("has a labels.csv; with folders only", "DIR")] = ()
    features: Annotated[
        Literal["none", "pca", "autoencoder", "soft-kmeans"] | None,
        Option("what the head looks at", unless="none; of a state as [review] says"),
    ] = None
    head: Annotated[Literal["logistic", "svm"], Option("svm has a Gaussian kernel; with folders only")] = "svm"
    model: Annotated[str, Option("whose embedding is used; of a state the one that serves")] = "shipped"
    seed: Annotated[int, Option("", "N")] = 1
    list: Annotated[Path, Option("where the order goes", "FILE.csv")]


def run(options: Options) -> int:
    """Exit 0 with the list written, 65 for labels that make no sense or no curve, 69 without scikit-learn or a state.

    64 where it is not clear whether a state or folders are meant.
    """
    from daemon.client.folders import refuse_watched
    from daemon.learn.head import require_sklearn

    refuse_watched({"--list": options.list}, None if options.folders else load(options.service))
    require_sklearn()
    of_state = options.service.file is not None or bool(options.service.keys)
    if options.folders and of_state:
        raise UserError(USAGE, "name folders, or a state by --state or --config, and not both")
    if options.folders:
        return _of_folders(options)
    if options.labelled:
        raise UserError(USAGE, "--labelled teaches what is in folders: name them; a state has its own labels")
    return _of_state(options)


def _of_state(options: Options) -> int:
    from daemon.common import ending
    from daemon.common.stdio import working
    from daemon.labels import Labels
    from daemon.learn.order import Pile
    from daemon.ledger.view import LedgerView

    config = load(options.service)
    if options.features is not None:
        config = replace(config, review=replace(config.review, features=options.features))

    def tell(text: str) -> None:
        print(f"afm-triage: {text}", file=sys.stderr)

    with LedgerView(config.ledger_file) as view, Pile(config, tell) as pile:
        pile.look()
        with working("embedding", pile.left) as done:
            while left := pile.left:
                ending.check()
                pile.embed_some()
                for _ in range(left - pile.left):
                    done()
        ranking, said = pile.ranking(), set[int]()
        if (file := config.state / "labels.sqlite").is_file():
            with Labels(file, is_reading=True) as labels:
                said = set(labels.words())
        looks = [look for look in view.looks("review", limit=1 << 40) if look.seq not in said]
        scores = {look.seq: look.score for look in looks}
        if ranking is not None:
            looks = ranking.order(looks)
            scores = dict(zip(ranking.seqs.tolist(), ranking.scores.tolist(), strict=True))
        events = view.decisions([look.seq for look in looks])
    data = ((events[look.seq]["data"], scores.get(look.seq)) for look in looks)
    _write(options.list, ((one["path"], one["curve"], score) for one, score in data))
    lacks = f": {pile.missing} needed for an order by your labels" if pile.missing else ""
    by = f"by score{lacks}" if ranking is None else f"in the order of {ranking.labels} labels that can teach it"
    print(f"{options.list}: {len(looks)} flagged curves {by}", file=sys.stderr)
    return 0


def _of_folders(options: Options) -> int:
    import numpy as np

    from daemon.common.stdio import progress
    from daemon.learn.evidence import collect
    from daemon.learn.head import Start, embed_all, parent_of, rank
    from daemon.reading.ahead import find, read_curves
    from models.heads import embed

    if absent := [folder for folder in options.folders if not folder.exists()]:
        raise UserError(BAD_DATA, f"{absent[0]}: no such file or folder")
    if not options.labelled:
        raise UserError(USAGE, "name --labelled DIR, curves from which the order is learned")
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
    scores[able] = rank(known, events, vectors[able], options.features or "none", options.head, options.seed)
    order = np.argsort(-scores, kind="stable")  # NaN sorts last
    _write(options.list, ((*names[place], None if np.isnan(scores[place]) else scores[place]) for place in order))
    print(
        f"{options.list}: {len(names)} curves in order, {int((~able).sum())} of them without a score", file=sys.stderr
    )
    return 0


def _write(file: Path, rows: Iterable[tuple[str, int, float | None]]) -> None:
    """Path, number of the curve and its score, in the order of the list; whole or not at all."""
    table = io.StringIO(newline="")
    writer = csv.writer(table)
    writer.writerow(("path", "curve_index", "rank_score"))
    writer.writerows((path, curve, "" if score is None else f"{score:.6g}") for path, curve, score in rows)
    try:
        write_whole(file, table.getvalue().encode())
    except OSError as error:
        raise UserError(INPUT_OUTPUT, f"--list {file}: {error.strerror}") from None
