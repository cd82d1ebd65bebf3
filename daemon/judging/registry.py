"""The registry: which model serves a state, which ones did, and every model that ever judged there, readable for good.

The configured model is the *base*. A *promotion* puts another model in its place, for the curves of one session group
and while the configured model is still the base that it was made from. What is in force stands in one small file that
is written whole; ``history.jsonl`` beside it tells what was done. What was promoted or has judged lies under
``.judged`` by its id, so that nothing which happens to its own folder changes what serves
(deploy/decisions/0016-registry-and-cut.md).
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec
from msgspec import Struct

from daemon.common.locks import lock
from models import files
from models.bundle import CARD, MANIFEST, SHIPPED, WEIGHTS, BadBundle, Bundle, Cut, id_in, read, resolve, write
from models.certificate import Certificate
from models.clock import utc_now

log = logging.getLogger(__name__)

SERVING = "serving.json"  # what is in force: the one file that is looked at
HISTORY = "history.jsonl"
JUDGED = ".judged"  # every model that was promoted or has judged, by its id
SERVED = "served-models.jsonl"  # in the state folder: a line each time another model begins to judge
_BASE, _LOCK = "base.json", ".lock"
_MOST_BYTES = 16 << 20
#: Of what is in force: another value each time something else came into force; None while nothing ever did.
Stamp = tuple[int, int, int] | None
_LOCK_LIMIT_S = 5.0  # somebody else changes what serves, which takes milliseconds


class Promotion(Struct, frozen=True):
    """A model in the place of the base, for one session group."""

    name: str
    id: str
    base_id: str  # the configured model that it was made from, and instead of which it serves
    group: str  # the session group, "" where none was given
    why: str
    time: str  # UTC, RFC 3339
    by: str


class Change(Struct, frozen=True):
    """One line of the history."""

    number: int  # from 1
    act: Literal["promote", "rollback", "group"]
    group: str
    id: str | None  # of the promotion that is in force for this group from now on; None: the base
    name: str | None
    before: str | None  # the id in force for this group until now
    base_id: str | None
    why: str
    time: str
    by: str


class _InForce(Struct, frozen=True):
    """serving.json; the last promotion of a group, made from the base in question, is the one that holds."""

    format: Literal[1] = 1
    group: str = ""
    promotions: tuple[Promotion, ...] = ()
    last: Change | None = None

    def of(self, group: str, base_id: str | None) -> Promotion | None:
        fitting = (one for one in self.promotions if one.group == group and base_id in (None, one.base_id))
        return next(reversed(list(fitting)), None)


@dataclass(frozen=True, slots=True)
class Served:
    """A model that has judged for a state; ``since`` is when it first did, RFC 3339; ``folder`` is where it lay."""

    id: str
    name: str
    folder: Path
    since: str


class Registry:
    """``models`` is the folder of the laboratory's own models, ``STATE/models``; it need not exist yet.

    Whatever cannot be read or may not be promoted is BadBundle with one sentence, and then nothing has changed.
    OSError where the disk refuses.
    """

    def __init__(self, models: Path) -> None:
        self.models = models

    # What is in force.

    def stamp(self) -> Stamp:
        """Costs one look at a file."""
        try:
            found = (self.models / SERVING).stat()
        except OSError:
            return None
        return found.st_ino, found.st_mtime_ns, found.st_size

    def group(self) -> str:
        """The session group whose promotions are in force."""
        return self._in_force().group

    def serving(self, base_id: str | None = None) -> Promotion | None:
        """The promotion in force, of those made from ``base_id`` where that is given; None: the base serves."""
        in_force = self._in_force()
        return in_force.of(in_force.group, base_id)

    def for_group(self, group: str, base_id: str | None = None) -> Promotion | None:
        """The last promotion of a session group that was not taken back; None: the base."""
        return self._in_force().of(group, base_id)

    def last(self) -> Change | None:
        """What was done last."""
        return self._in_force().last

    def history(self) -> list[Change]:
        """What was done, the first first."""
        found = list[Change]()
        for line in _lines(self.models / HISTORY):
            with suppress(msgspec.DecodeError):  # cut by a crash
                found.append(msgspec.json.decode(line, type=Change))
        known = {one.number: one for one in (*found, self._in_force().last) if one}  # a crash may lie between
        return [known[number] for number in sorted(known)]

    def taken_back(self, group: str) -> Change | None:
        """The last promotion of a group that was taken back, where nothing was promoted since."""
        its = [one for one in self.history() if one.group == group and one.act != "group"]
        return its[-1] if its and its[-1].act == "rollback" else None

    def _in_force(self) -> _InForce:
        file = self.models / SERVING
        try:
            with file.open("rb") as opened:
                data = opened.read(_MOST_BYTES)
        except FileNotFoundError:
            return _InForce()
        try:
            return msgspec.json.decode(data, type=_InForce)
        except msgspec.DecodeError as error:
            advice = f"move it away, and promote again what {HISTORY} beside it names"
            raise BadBundle(f"{file} is damaged or of another version ({error}): {advice}") from None

    def promote(self, name: str | Path, *, base: Bundle, group: str | None = None, why: str, by: str) -> Promotion:
        """Let the model that ``name`` means serve for a session group, by default the present one.

        ``base`` is the configured model. Refused where the folder is not as its manifest says, has another raster than
        the base, or has weights that neither have judged here nor prove themselves on known curves. What holds already
        is not promoted again.
        """
        bundle = read(self.find(name))
        if bundle.profile != base.profile:
            advice = f'to judge with it in every group name it as the model of the configuration: model = "{name}"'
            raise BadBundle(f"{bundle.id} draws curves in another raster than the model {base.id}; {advice}")
        if bundle.weights_sha256 != base.weights_sha256 and bundle.id not in self._judged():
            _prove(bundle)
        self.keep(bundle)
        with self._changing() as in_force:
            group = in_force.group if group is None else group
            made = Promotion(_name_of(bundle), bundle.id, base.id, group, why, utc_now("seconds"), by)
            before = in_force.of(group, base.id)
            if before is not None and before.id == made.id:
                return before
            change = self._change(in_force, "promote", group, made, before, base.id, why, by)
            self._write(_InForce(1, in_force.group, (*in_force.promotions, made), change))
        return made

    def rollback(
        self, by: str, why: str, *, group: str | None = None, base_id: str | None = None, only: str | None = None
    ) -> Promotion | None:
        """Take back the last promotion of a group, by default the present one; returns what holds instead, None: base.

        ``only``: nothing is done unless the model of this id is what holds. BadBundle where there is nothing to take
        back.
        """
        with self._changing() as in_force:
            group = in_force.group if group is None else group
            held = in_force.of(group, base_id)
            if held is None or only not in (None, held.id):
                if only is not None:
                    return held
                raise BadBundle("nothing to roll back: the configured model serves")
            at = max(place for place, one in enumerate(in_force.promotions) if one is held)
            left = in_force.promotions[:at] + in_force.promotions[at + 1 :]
            after = _InForce(1, in_force.group, left).of(group, held.base_id)
            change = self._change(in_force, "rollback", group, after, held, held.base_id, why, by)
            self._write(_InForce(1, in_force.group, left, change))
        return after

    def turn_to(self, group: str, *, by: str, why: str = "a session began") -> Promotion | None:
        """From now on curves are those of this session group: its last promotion holds, which is returned."""
        if self._in_force().group == group:
            return self.for_group(group)
        with self._changing() as in_force:
            after = in_force.of(group, None)
            before = in_force.of(in_force.group, None)
            base_id = after.base_id if after else None
            change = self._change(in_force, "group", group, after, before, base_id, why, by)
            self._write(_InForce(1, group, in_force.promotions, change))
        return after

    def _change(
        self,
        in_force: _InForce,
        act: Literal["promote", "rollback", "group"],
        group: str,
        after: Promotion | None,
        before: Promotion | None,
        base_id: str | None,
        why: str,
        by: str,
    ) -> Change:
        number = (in_force.last.number if in_force.last else 0) + 1
        id, name = (after.id, after.name) if after else (None, None)
        held = before.id if before else None
        return Change(number, act, group, id, name, held, base_id, why, utc_now("seconds"), by)

    @contextmanager
    def _changing(self) -> Iterator[_InForce]:
        """What is in force, while nobody else may change it. The kernel frees the lock of whoever dies."""
        self.models.mkdir(parents=True, exist_ok=True)
        held = os.open(self.models / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            deadline_s = time.monotonic() + _LOCK_LIMIT_S
            while True:
                try:
                    lock(held)
                    break
                except BlockingIOError:
                    if time.monotonic() >= deadline_s:
                        raise
                    time.sleep(0.01)
            in_force = self._in_force()
            files.remove_abandoned(self.models)
            files.remove_abandoned(self.models / JUDGED)
            self._note(in_force.last)
            yield in_force
        finally:
            os.close(held)

    def _write(self, in_force: _InForce) -> None:
        """First what is in force, by one rename; then the line of the history, which the next change makes up for."""
        files.write_whole(
            self.models / SERVING, msgspec.json.format(msgspec.json.encode(in_force)) + b"\n", is_synced=True
        )
        files.sync_folder(self.models)
        self._note(in_force.last)

    def _note(self, change: Change | None) -> None:
        """Its line in the history, unless it is there."""
        if change is None:
            return
        line, path = msgspec.json.encode(change), self.models / HISTORY
        if line not in _lines(path)[-3:]:
            files.append_line(path, line)

    # Models by name and id.

    def find(self, name: str | Path) -> Path:
        """The folder of a model by its name, its folder, or the id of any that is here or ever judged here."""
        text = str(name)
        if text == "shipped":
            return SHIPPED
        with suppress(BadBundle):
            return resolve(name, self.models)
        if Path(text).name == text:
            named = [one.id for one in self.served() if one.name == text]
            named += [one.id for one in self._in_force().promotions if one.name == text]
            for id in (text, *reversed(named)):
                for folder in self._with_id(id):
                    return folder
        raise BadBundle(f"no model {text!r}: name a model folder, an id of `models list`, or 'shipped'")

    def _with_id(self, id: str) -> Iterator[Path]:
        own = sorted(self.models.iterdir()) if self.models.is_dir() else []
        noted = [one.folder for one in self.served() if one.id == id]
        for folder in (self.models / JUDGED / id, *own, *noted, SHIPPED):
            with suppress(BadBundle, OSError):
                if (folder / MANIFEST).is_file() and id_in(folder) == id:
                    yield folder

    def _judged(self) -> set[str]:
        folder = self.models / JUDGED
        return {one.name for one in folder.iterdir() if not one.name.startswith(".")} if folder.is_dir() else set()

    def folder_of(self, promotion: Promotion) -> Path:
        """Where what serves lies: not the folder that it was promoted from, which may hold another model by now."""
        return self.models / JUDGED / promotion.id

    def keep(self, bundle: Bundle) -> Path:
        """The folder of this model under its id, made where it is not there whole. BadBundle, OSError."""
        folder = self.models / JUDGED / bundle.id
        if folder.name != bundle.id or bundle.id.startswith("."):
            raise BadBundle(f"{bundle.id!r} is no name for a folder; give the model another name")
        with suppress(BadBundle, OSError):
            if folder == bundle.folder or read(folder).id == bundle.id:
                return folder
        folder.parent.mkdir(parents=True, exist_ok=True)
        fresh = folder.with_name(f".{bundle.id}.{os.getpid()}-{threading.get_ident()}.new")
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir()
        try:
            for name in (MANIFEST, CARD):
                files.copy_synced(bundle.folder / name, fresh / name)
            if (same := self._weights_of(bundle.weights_sha256)) is not None:
                files.link_or_copy(same, fresh / WEIGHTS)
            else:
                files.copy_synced(bundle.folder / WEIGHTS, fresh / WEIGHTS)
            if read(fresh).id != bundle.id:
                raise BadBundle(f"{bundle.folder} holds another model by now than {bundle.id}")
            files.replace_folder(fresh, folder)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
        files.sync_folder(folder.parent)
        return folder

    def _weights_of(self, sha256: str) -> Path | None:
        """A file of these weights that is here for good."""
        for id in self._judged():
            file = self.models / JUDGED / id / WEIGHTS
            with suppress(OSError):
                if hashlib.sha256(file.read_bytes()).hexdigest() == sha256:
                    return file
        return None

    def write_cut(
        self,
        parent: Bundle,
        name: str,
        discard: float,
        evidence: Mapping[str, Any],
        certificate: Certificate | None = None,
        code_version: str = "",
    ) -> Bundle:
        """A child of ``parent``: the same weights with another discard threshold (a score), as one act.

        ``evidence`` says what moved it: ``basis`` (:data:`models.bundle.CONFIRMED`), ``events``, ``band`` ([old, new],
        as scores) and ``group``. It lies in the registry under ``name``; it serves once it is promoted.
        """
        if name != Path(name).name or name.startswith(".") or name in ("", "shipped"):
            raise BadBundle(f"{name!r} is no name for a model; take letters, digits, - and _")
        if not 0.0 <= discard < parent.keep:  # also NaN
            raise BadBundle(f"a discard threshold lies from 0 to below keep ({parent.keep:g}), not at {discard:g}")
        thresholds = Cut(discard, parent.keep, dict(evidence))
        manifest = msgspec.structs.replace(
            parent.manifest,
            name=name,
            created=utc_now("seconds"),
            parent=parent.id,
            code_version=code_version or parent.manifest.code_version,
            thresholds=thresholds,
            certificate=certificate,
        )
        kept = self.keep(parent)
        return write(self.models / name, kept / WEIGHTS, manifest, _card(name, parent, thresholds, kept), parent)

    # What judged.

    def note_served(self, name: str, bundle: Bundle) -> None:
        """Note that ``bundle`` judges from now on, before its first verdict; once for each time it takes over."""
        path, folder = self.models.parent / SERVED, str(bundle.folder.absolute())
        said = {"id": bundle.id, "name": name, "folder": folder, "since": utc_now("seconds")}
        try:
            before = self._noted()
            if not before or (before[-1].id, str(before[-1].folder)) != (bundle.id, folder):
                files.append_line(path, json.dumps(said).encode())
            if not (self.models / JUDGED / bundle.id / MANIFEST).is_file():
                self.keep(bundle)
        except (BadBundle, OSError) as error:  # it judges all the same: events name it
            why = error.strerror if isinstance(error, OSError) else error
            log.warning("%s: %s; `models list` may not know %s", path, why, bundle.id)

    def served(self) -> list[Served]:
        """Every model that has judged for this state, the first one first."""
        found = {one.id: one for one in reversed(self._noted())}
        return sorted(found.values(), key=lambda one: one.since)

    def _noted(self) -> list[Served]:
        """The lines of the note that can be read."""
        found = []
        for line in _lines(self.models.parent / SERVED):
            with suppress(ValueError, KeyError, TypeError):  # cut by a crash
                said = json.loads(line)
                found.append(Served(str(said["id"]), str(said["name"]), Path(said["folder"]), str(said["since"])))
        return found

    def note_base(self, name: str) -> None:
        """The service writes which model it is configured with, for verbs that are not told."""
        with suppress(OSError):
            if self.base_name() != name:
                self.models.mkdir(parents=True, exist_ok=True)
                files.write_whole(self.models / _BASE, json.dumps({"model": name}).encode() + b"\n")

    def base_name(self) -> str | None:
        """The model that the last service on this state was configured with; None where there was none."""
        with suppress(OSError, ValueError, TypeError, KeyError):
            said = json.loads((self.models / _BASE).read_bytes())["model"]
            return said if isinstance(said, str) and said else None
        return None


def _name_of(bundle: Bundle) -> str:
    if bundle.folder == SHIPPED:
        return "shipped"
    return bundle.manifest.name if bundle.folder.parent.name == JUDGED else bundle.folder.resolve().name


def _prove(bundle: Bundle) -> None:
    """Weights that nobody here knows compute what their manifest says; BadBundle where they do not."""
    from deploy.classifier import EngineRequest, NoEngine
    from deploy.serving import Model, SelfTestFailed

    try:
        Model.of(bundle, EngineRequest(device="cpu", precision="fp32"))
    except (SelfTestFailed, NoEngine) as error:
        raise BadBundle(f"{bundle.id} does not judge known curves as its manifest says: {error}") from None


def _card(name: str, parent: Bundle, cut: Cut, folder: Path) -> str:
    told = (folder / CARD).read_text(encoding="utf-8", errors="replace")
    return (
        f"# {name}\n\nThe network and calibration of {parent.id} with another discard threshold: {cut.discard:.4g}"
        f" instead of {parent.discard:.4g},\nby {cut.events} events that people confirmed.\n\n"
        f"What follows is the card of {parent.id}; its discard threshold and its promise are not this one's.\n\n{told}"
    )


def _lines(path: Path) -> list[bytes]:
    try:
        return path.read_bytes().splitlines() if path.stat().st_size <= _MOST_BYTES else []
    except OSError:
        return []
