"""The lessons: what the labels of a ledger teach, curve by curve, and which of them nothing may ever be trained on.

Three in ten curves are held out, by the digits of their fingerprint alone: no list says which, so none can be lost,
and a copy under another name is held out too. The events among them are the laboratory's golden ones, which the gate
asks; the event-free ones are for figures.
"""

from __future__ import annotations

import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cache, cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from daemon.client.folders import standings, watched_folders
from daemon.common.errors import BAD_DATA, INPUT_OUTPUT, UserError
from daemon.common.stdio import progress
from daemon.common.text import many
from daemon.config import Config
from daemon.formats.afmcurve import unpack
from daemon.formats.base import Unfinished, Unreadable
from daemon.labels import Label, Labels, Word
from daemon.labels.confirmed import is_event, missing_of
from daemon.labels.curve_name import copy_of_file, name_of
from daemon.labels.sessions import Sessions
from daemon.labels.table import by_curve
from daemon.learn.evidence import TrainingRecord, fingerprint_of
from daemon.learn.ground import Ground
from daemon.learn.training import orientation
from daemon.ledger.view import LedgerView
from models.bundle import SHIPPED, Bundle
from models.clock import since_1970
from models.curve import Curve
from models.finetune import TAIL, Lessons, trunk_of
from models.frontend import OPEN, prepare, turned
from models.network import ResNet18
from models.raster import Floats, RasterProfile, envelope
from models.train import infer

#: Real events that ship with the program (models/golden/ORIGIN.md).
GOLDEN = SHIPPED.with_name("golden") / "events.zip"
#: Confirmed events from which on a fine-tuning is worth having: with tens it gains no more than the cut does.
EVENTS = 100
#: The most labelled curves that one night opens: 320 MB of memory, and some minutes.
MOST = 20_000
_TEACHES: Mapping[Word, float] = {"keep": 1.0, "discard": 0.0, "unsure": 0.5}
_HELD_OUT_OF_TEN = 3


@cache
def golden_events() -> tuple[Curve, ...]:
    """Real events under free licences, pulling upwards; nothing may ever be trained on them. UserError 74."""
    try:
        with zipfile.ZipFile(GOLDEN) as held:
            return tuple(unpack(held.read(name))[0] for name in held.namelist())
    except (OSError, zipfile.BadZipFile, Unfinished, Unreadable) as error:
        raise UserError(INPUT_OUTPUT, f"{GOLDEN} cannot be read ({error}); install the program again") from error


@cache
def golden_fingerprints() -> frozenset[str]:
    """Of these, as their publishers have them and as they are kept here, either way up."""
    held = golden_events()
    with zipfile.ZipFile(GOLDEN) as opened:
        published = [Path(name).stem.rpartition("-")[2] for name in opened.namelist()]
    return frozenset([*published, *map(fingerprint_of, held), *(fingerprint_of(turned(one)) for one in held)])


def is_held_out(fingerprint: str) -> bool:
    """Whether nothing may ever be trained on this curve: three in ten, and what is no fingerprint."""
    try:
        return int(fingerprint, 16) % 10 < _HELD_OUT_OF_TEN
    except ValueError:
        return True


@dataclass(frozen=True, eq=False)
class Taught:
    """N real curves on which people have said something sure, as envelopes of the network's raster profile."""

    seqs: NDArray[np.int64]  # (N,), the decision; 0 where this ledger has none
    edges: Floats  # (N, 2, W) in signal units, the way up that is taught
    turned: Floats  # (M, 2, W): of curves whose sign is open, the other way up
    turned_of: NDArray[np.int64]  # (M,) place of the curve that each is of
    targets: NDArray[np.float32]  # (N,), mean over raters of keep 1, unsure 0.5, discard 0
    is_event: NDArray[np.bool_]  # (N,): every rater says keep
    is_free: NDArray[np.bool_]  # (N,): every rater says discard
    groups: NDArray[np.int64]  # (N,) place in ``experiments``
    experiments: tuple[str, ...]  # sample, folder and day of measurement
    fingerprints: tuple[str, ...]  # (N,)
    is_held_out: NDArray[np.bool_]  # (N,): never trained on
    left_aside: Mapping[str, int]  # why -> curves that teach nothing
    missing: str | None  # what there must be before anything is tuned; None: nothing

    def __len__(self) -> int:
        return len(self.fingerprints)

    @property
    def golden(self) -> NDArray[np.bool_]:
        """(N,): the laboratory's own golden events."""
        return np.asarray(self.is_event & self.is_held_out, np.bool_)

    @property
    def trained(self) -> NDArray[np.int64]:
        """(K,) places of the curves that are learned from."""
        return np.flatnonzero(~self.is_held_out)

    @cached_property
    def curves(self) -> frozenset[str]:
        """Fingerprints of the curves that are learned from, as a training record notes them."""
        return frozenset(self.fingerprints[place] for place in self.trained)

    def lessons(self, network: ResNet18, profile: RasterProfile, device: str = "cpu") -> Lessons:
        """(K,) what is learned from, as the trunk of this network gives it; never a held-out curve."""
        chosen = self.trained
        trunk = trunk_of(network, self.edges[chosen], profile, device)
        weights = np.ones(len(chosen), np.float32)
        return Lessons(trunk, self.targets[chosen], weights, self.groups[chosen])

    def logits(self, network: ResNet18, profile: RasterProfile) -> NDArray[np.float64]:
        """(N,) what a network says of each, in single precision; of an open sign the higher of both ways, as served."""
        logits = infer(network, self.edges, profile)
        np.maximum.at(logits, self.turned_of, infer(network, self.turned, profile))
        return logits

    def unseen_by(self, bundle: Bundle) -> NDArray[np.bool_]:
        """(N,): the model was not trained on it, as its record says."""
        seen = TrainingRecord.of(bundle.manifest.training).curves
        return np.array([name not in seen for name in self.fingerprints], np.bool_)

    def sentences(self) -> Iterator[str]:
        """What there is, and what was left aside; what is missing stands in :attr:`missing`."""
        if len(self):
            events, free = int(self.is_event.sum()), int(self.is_free.sum())
            golden = int(self.golden.sum())
            others = len(self) - events - free
            differing = f", {others} on which raters differ" if others else ""
            yield (
                f"{many(events, 'confirmed event')} and {free:,} event-free curves{differing}, of "
                f"{many(len(self.experiments), 'experiment and day')}; never learned from: {golden} golden events and "
                f"{int(self.is_held_out.sum()) - golden} others"
            )
        yield from (f"{many(count, 'curve')} left aside: {why}" for why, count in self.left_aside.items())


def untaught(ground: Ground, taught: Taught) -> Bundle:
    """The network that a tuning starts from: the base, where what serves is a child of it that labels have taught.

    So every night begins anew, with all labels there are: what is said of them by cross-fit is by networks that never
    saw them, and nothing drifts from night to night. Where the base is no parent of it in the layers below, or was
    trained on these curves itself, it is the network that serves.
    """
    base, network = ground.base, ground.network
    if (base.width, base.profile) != (network.width, network.profile) or base.weights.keys() != network.weights.keys():
        return network
    trunk = [name for name in base.weights if not name.startswith(TAIL)]
    is_parent = all(np.array_equal(base.weights[name], network.weights[name]) for name in trunk)
    return base if is_parent and taught.unseen_by(base).all() else network


def lessons_of(
    config: Config,
    view: LedgerView,
    labels: Labels,
    ground: Ground,
    *,
    events: int = EVENTS,
) -> Taught:
    """All that the labels teach, of every session group of the ledger; some 5 ms a curve.

    ``events``: confirmed ones that there must be; with fewer nothing is opened and :attr:`Taught.missing` says so.
    Curves that the gate asks every laboratory about teach nothing here, and are counted.

    Raises UserError 65 where raters contradict each other (kappa), where all labels say one and the same, and for
    labels on curves that nobody knows; 74 as the ledger and the labels do.
    """
    if ground.bar.blocks:
        raise UserError(BAD_DATA, ground.bar.text)
    said = _said(labels)
    _check_kinds(said, events)
    confirmed = sum(is_event(one.label for one in words) for _, words in said)
    if (missing := missing_of(confirmed, events)) is not None:
        return _taught(ground.network, {}, {}, missing)
    aside: Counter[str] = Counter()
    said = _latest(said, aside)
    found = _open(config, view, Sessions(labels), said, ground.network.profile, aside)
    for name in found.keys() & golden_fingerprints():
        del found[name]
        aside["they are golden curves of the program"] += 1
    taught = _taught(ground.network, found, aside, None)
    return replace(taught, missing=missing_of(int(taught.is_event.sum()), events))


_Said = list[tuple[int, list[Label]]]  # seq, 0 where this ledger has none, and what raters say of the curve


@dataclass(slots=True)
class _Shown:
    """A curve as it is prepared, and every word on it."""

    signal: NDArray[np.float32]
    open: Curve | None  # itself, where its sign is open; of all others the signal is enough
    seq: int
    experiment: str
    words: list[Word] = field(default_factory=list)

    def all_say(self, word: Word) -> bool:
        return all(one == word for one in self.words)


def _said(labels: Labels) -> _Said:
    """Every curve that somebody has said a word on, in the order of decisions; what this ledger has not comes first."""
    decided = labels.labelled()
    known = {one.identity for words in decided.values() for one in words}
    others = [words for identity, words in by_curve(labels.current()).items() if identity not in known]
    return [*((0, words) for words in others), *sorted(decided.items())]


def _latest(said: _Said, aside: Counter[str]) -> _Said:
    """All that anybody calls an event, and as many of the others, the latest ones, as a night can open."""
    others = [place for place, (_, words) in enumerate(said) if all(one.label != "keep" for one in words)]
    leave = set(others[: max(len(said) - MOST, 0)])
    if leave:
        aside["labelled long ago, and there are enough without events"] += len(leave)
    return [one for place, one in enumerate(said) if place not in leave]


def _check_kinds(said: _Said, events: int) -> None:
    """UserError (65) where so many labels have come together that one kind alone is a mistake."""
    sure = Counter(one.label for _, words in said for one in words if one.label != "unsure")
    if len(sure) == 1 and (count := sum(sure.values())) >= events:
        word, other = ("keep", "discard") if "keep" in sure else ("discard", "keep")
        raise UserError(BAD_DATA, f"all {count} labels say {word}: one kind alone teaches nothing, so {other} some too")


def _open(
    config: Config, view: LedgerView, sessions: Sessions, said: _Said, profile: RasterProfile, aside: Counter[str]
) -> dict[str, _Shown]:
    """Fingerprint -> the curve and what is said of it; copies under other names are one."""
    found: dict[str, _Shown] = {}
    unknown: list[Label] = []
    experiments, copies = _experiments(view, sessions, [seq for seq, _ in said if seq]), _Copies(config, view)
    for seq, words in progress(said, "reading labelled curves", len(said)):
        label = words[0]
        curve = copies.curve_of(label)
        if curve is None:
            if seq == 0 and label.stream is None:
                unknown.append(label)
            else:
                aside["no copy is kept, and the file is gone or changed"] += 1
            continue
        name = fingerprint_of(curve)
        if name not in found:
            signal = prepare([curve], profile)[0].signal
            if signal is None:  # as in service
                aside["they can get no score"] += 1
                continue
            place = experiments.get(seq) or _experiment("", label.folder, curve.acquired_s or 0.0)
            found[name] = _Shown(signal, curve if OPEN in curve.notes else None, seq, place)
        found[name].words += [one.label for one in words]
    if unknown:
        first = name_of(unknown[0].path, unknown[0].curve)
        what = "label is on a curve" if len(unknown) == 1 else "labels are on curves"
        remedy = "start the service on their folder, or take them back with: labels remove"
        raise UserError(BAD_DATA, f"{len(unknown)} {what} that nobody knows here, the first {first}: {remedy}")
    for name in [name for name, one in found.items() if one.all_say("unsure")]:
        del found[name]
        aside["nobody is sure of them"] += 1
    return found


def _experiments(view: LedgerView, sessions: Sessions, seqs: Sequence[int]) -> dict[int, str]:
    """Each ``seq`` -> sample of its session, watched folder and day of measurement."""
    samples, found = sessions.groups_of(seqs), {}
    for seq, event in view.decisions(seqs).items():
        data = event["data"]
        acquired = data.get("acquired") or event["time"]  # of a decision from before files were asked when they are of
        found[seq] = _experiment(samples[seq], data.get("folder"), since_1970(acquired))
    return found


def _experiment(sample: str, folder: str | None, acquired_s: float) -> str:
    return f"{sample}|{folder or ''}|{datetime.fromtimestamp(acquired_s).date()}"


class _Copies:
    """Compact copies, of the ledger or else made of files; folders are asked for when the first file is needed."""

    def __init__(self, config: Config, view: LedgerView) -> None:
        self._config, self._view = config, view
        self._silent: dict[Path, bool] = {}

    @cached_property
    def _watched(self) -> list[Path]:
        return watched_folders(self._config)

    def curve_of(self, label: Label) -> Curve | None:
        """None where neither ledger nor file has it."""
        kept = self._view.find_copy(label.curve, sha256=label.sha256, path=label.path)
        try:
            return unpack(kept or self._of_file(label) or b"")[0]
        except (Unfinished, Unreadable):
            return None

    def _of_file(self, label: Label) -> bytes | None:
        folders = [*([Path(label.folder)] if label.folder else []), *self._watched]
        unasked = [folder for folder in folders if folder not in self._silent]
        self._silent |= {folder: how == "silent" for folder, how in standings(unasked).items()} if unasked else {}
        return copy_of_file(label, self._watched, [folder for folder, silent in self._silent.items() if silent])


def _taught(network: Bundle, found: Mapping[str, _Shown], aside: Mapping[str, int], missing: str | None) -> Taught:
    """All of it as arrays."""
    profile, oriented, every = network.profile, orientation(network), list(found.values())
    signals = [one.signal for one in every]
    others: dict[int, NDArray[np.float32]] = {}
    for place, one in enumerate(every):
        if one.open is None:
            continue
        curve = oriented(one.open) if one.all_say("keep") else one.open
        way, other = (prepared.signal for prepared in prepare([curve, turned(curve)], profile))
        signals[place] = one.signal if way is None else way
        if other is not None:
            others[place] = other
    names = sorted({one.experiment for one in every})
    return Taught(
        seqs=np.array([one.seq for one in every], np.int64),
        edges=envelope(signals, profile),
        turned=envelope(list(others.values()), profile),
        turned_of=np.array(list(others), np.int64),
        targets=np.array([np.mean([_TEACHES[word] for word in one.words]) for one in every], np.float32),
        is_event=np.array([one.all_say("keep") for one in every], np.bool_),
        is_free=np.array([one.all_say("discard") for one in every], np.bool_),
        groups=np.array([names.index(one.experiment) for one in every], np.int64),
        experiments=tuple(names),
        fingerprints=tuple(found),
        is_held_out=np.array([is_held_out(name) for name in found], np.bool_),
        left_aside=dict(aside),
        missing=missing,
    )
