"""Archives: curves packed once, bit for bit, readable by any HDF5 program, and never mistaken for curves."""

from __future__ import annotations

import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
import pytest
from makers import a_retract, make_jpk, make_jpk_map
from modelhelp import make_model

from daemon import formats
from daemon.archive import (
    ATTRIBUTE,
    COLUMNS,
    PARTS,
    Archive,
    BadArchive,
    Origin,
    Part,
    is_archive,
    origins,
    portions,
    prepare_portions,
    start_workers,
)
from daemon.archive.worker import MappedPart, survey
from daemon.archive.writer import ArchiveWriter
from daemon.cli import main
from daemon.formats.base import Blob
from daemon.processes.worker_pool import WorkersBroken
from models.curve import Curve
from models.frontend import prepare
from models.raster import RasterProfile
from models.simulate import simulate

ROOT = Path(__file__).resolve().parents[1]
REAL = ROOT / "daemon" / "curves"


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("models") / "small"
    make_model(folder)
    return str(folder)


@pytest.fixture(scope="module")
def lab(tmp_path_factory) -> Path:
    """Real curves of every format, a map, and files that cannot be read."""
    folder = tmp_path_factory.mktemp("lab")
    shutil.copytree(REAL, folder / "real")
    (folder / "map.jpk-force-map").write_bytes(make_jpk_map(40, points=128))
    (folder / "broken.jpk-force").write_bytes(b"PK\x03\x04 no more")
    (folder / os.fsdecode(b"caf\xe9.jpk-force")).write_bytes(make_jpk(*a_retract(256)))
    return folder


@pytest.fixture(scope="module")
def packed(lab, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("packed") / "lab.h5"
    assert main(["pack", str(lab), "--out", str(path)]) == 0
    return path


def write(path: Path, curves: list[Curve], **words) -> Path:
    with ArchiveWriter(path, **words) as writer:
        for number, curve in enumerate(curves):
            writer.add(Origin(f"c{number}", 0, 1, None, 0, 0, curve.force_unit), curve)
        writer.finish()
    return path


def read(path: Path) -> list[Curve | None]:
    found = survey(path)
    curves = []
    with path.open("rb") as file:
        for header in found["parts"]:
            part = Part.checked(header, path.stat().st_size)
            mapped = MappedPart(file.fileno(), part)
            curves += [mapped.curve(row) for row in range(part.curves)]
    return curves


def test_curves_come_back_to_the_bit_and_prepare_alike(tmp_path):
    curves = [one.curve for one in simulate(60, seed=3, prevalence=0.5)]
    assert any(curve.approach_force is not None for curve in curves)
    assert any(curve.force_unit == "V" for curve in curves)
    again = read(write(tmp_path / "a.h5", curves, with_distance=True))
    for curve, other in zip(curves, again, strict=True):
        assert curve.force.tobytes() == other.force.tobytes()
        scalars = (
            "force_unit",
            "spring_constant_n_per_m",
            "sensitivity_m_per_v",
            "duration_s",
            "notes",
            "distance_kind",
        )
        assert [getattr(curve, name) for name in scalars] == [getattr(other, name) for name in scalars]
        assert (curve.distance is None) == (other.distance is None)
        if curve.distance is not None:
            assert curve.distance.tobytes() == other.distance.tobytes()
    profile = RasterProfile()
    for one, other in zip(prepare(curves, profile), prepare(again, profile), strict=True):
        assert one.reasons == other.reasons
        assert (one.signal is None) == (other.signal is None)
        assert one.signal is None or one.signal.tobytes() == other.signal.tobytes()


def test_ruptures_from_an_archive_with_distances_are_those_from_the_files(lab, model, tmp_path, capsys):
    archive = tmp_path / "a.h5"
    assert main(["pack", str(lab), "--out", str(archive), "--distance"]) == 0
    capsys.readouterr()

    def told(path: Path) -> list[object]:
        assert main(["score", str(path), "--json", "--model", model, "--engine", "torch"]) == 0
        return [json.loads(line)["ruptures"] for line in capsys.readouterr().out.splitlines()]

    from_files = told(lab)
    assert told(archive) == from_files
    assert sum(bool(one) for one in from_files) > 10
    assert None in from_files  # a file that does not say what makes it a force


def test_a_curve_that_holds_on_by_its_approach_alone_does_so_from_the_archive(tmp_path):
    """The far end lies far above where the approach began: only the kept tenth can tell."""
    rng = np.random.default_rng(0)
    force, _ = a_retract(2000)
    force = force + 2e-9
    approach = rng.normal(0.0, 8e-12, 1500)
    curve = Curve(force, "N", approach_force=approach, spring_constant_n_per_m=0.05)
    (again,) = read(write(tmp_path / "a.h5", [curve]))
    (one,), (other,) = prepare([curve], RasterProfile()), prepare([again], RasterProfile())
    assert "still_attached" in one.reasons
    assert one.reasons == other.reasons
    assert np.isnan(again.approach_force[150:]).all()


@pytest.mark.parametrize("points", [0, 1, 9, 10, 63, 64, 65, 109])
def test_approaches_of_any_length_come_back(tmp_path, points):
    curve = Curve(np.arange(100.0), "N", approach_force=np.arange(float(points)))
    (again,) = read(write(tmp_path / "a.h5", [curve]))
    assert again.approach_force.shape == (points,)
    assert (again.approach_force[: points // 10] == curve.approach_force[: points // 10]).all()


def test_verdicts_from_an_archive_are_those_from_the_files(lab, packed, model, capsys):
    def lines(path: Path) -> list[dict]:
        assert main(["score", str(path), "--json", "--model", model, "--engine", "torch"]) == 0
        rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        # an archive may be on another machine: it does not say where the folder was, nor are its curves drawn, nor does
        # it know places without the distances
        left_out = ("latency_s", "folder", "preview_axes", "ruptures")
        return [{key: value for key, value in row.items() if key not in left_out} for row in rows]

    from_files, from_archive = lines(lab), lines(packed)
    assert len(from_files) > 60
    assert from_archive == from_files
    assert main(["score", str(packed), "--summary", "--model", model, "--engine", "torch"]) == 0
    out, err = capsys.readouterr()
    verdicts = [row["verdict"] for row in from_files]
    assert out == "".join(f"{word:<8} {verdicts.count(word)}\n" for word in ("keep", "review", "discard"))
    assert f"{len(verdicts)} curves in" in err


def test_an_archive_is_scored_on_where_it_was_ended(packed, model, tmp_path, capsys):
    command = ["score", str(packed), "--out", str(tmp_path / "out"), "--model", model, "--engine", "torch"]
    assert main(command) == 0
    whole = (tmp_path / "out").read_bytes()
    with (tmp_path / "out").open("r+b") as file:
        file.truncate(40_000)
    capsys.readouterr()
    assert main(command) == 0
    assert "judged before" in capsys.readouterr().err
    again = (tmp_path / "out").read_bytes()
    kept = whole[:40_000].rfind(b"\n") + 1
    assert again[:kept] == whole[:kept]
    assert again.count(b"\n") == whole.count(b"\n")
    other = tmp_path / "other.h5"
    main(["pack", "--simulate", "5", "--out", str(other)])
    assert main(["score", str(other), *command[2:]]) == 65
    assert "another curve" in capsys.readouterr().err
    assert (tmp_path / "out").read_bytes() == again


def test_any_hdf5_program_reads_it(packed):
    with h5py.File(packed) as file:
        assert file.attrs[ATTRIBUTE] == 1
        assert "force_end[k - 1]" in file.attrs["about"]
        part = file[PARTS]["000000"]
        assert set(part) == set(COLUMNS) - {"distance"}
        assert all(part[name].attrs["about"] == COLUMNS[name].about for name in part)
        ends, paths = part["force_end"][:], part["path"][:]
        assert paths[0] == b"broken.jpk-force"
        assert part["path"].asstr()[0] == "broken.jpk-force"
        assert h5py.check_string_dtype(part["path"].dtype).encoding == "utf-8"
        row = list(part["path"]).index(b"real/force-save-0441.jpk-force")
        force = part["force"][ends[row - 1] : ends[row]]
    (curve, *_) = formats.open_file(REAL / "force-save-0441.jpk-force")
    assert force.tobytes() == curve.force.tobytes()


def test_numpy_maps_it_as_the_decision_says(packed):
    with h5py.File(packed) as file:
        part = file[PARTS]["000000"]
        offset, count, ends = part["force"].id.get_offset(), part["force"].shape[0], part["force_end"][:]
        third = part["force"][ends[1] : ends[2]]
    assert third.size > 0
    assert (np.memmap(packed, "<f8", "r", offset, (count,))[ends[1] : ends[2]] == third).all()


def test_a_row_of_requests_that_is_given_up_leaves_the_next_one_alone():
    def row(first: int, rows: int) -> Iterator[dict]:
        for number in range(first, first + rows):
            yield {"do": "simulate", "seed": 1, "prevalence": 0.5, "first": number, "count": 1, "distance": True}

    with start_workers(2) as workers:
        whole = [header["curves"] for header, _ in workers.map(row(0, 12))]
        given_up = workers.map(row(0, 12))
        next(given_up)
        assert [header["curves"] for header, _ in workers.map(row(3, 9))] == whole[3:]


def test_where_curves_come_from_is_kept(packed, lab):
    found = survey(packed)
    with packed.open("rb") as file:
        (part,) = (Part.checked(header, packed.stat().st_size) for header in found["parts"])
        rows = origins(file.fileno(), part, 0, part.curves)
    assert [row.path for row in rows] == sorted(row.path for row in rows)
    broken = rows[0]
    assert (broken.path, broken.reason, broken.force_unit) == ("broken.jpk-force", "truncated", None)
    assert "caf\ufffd.jpk-force" in {row.path for row in rows}
    mapped = [row for row in rows if row.curves == 40]
    assert [row.index for row in mapped] == list(range(40))
    assert {row.size_bytes for row in mapped} == {(lab / "map.jpk-force-map").stat().st_size}


def test_the_same_seed_gives_the_same_bytes(tmp_path):
    for name, seed in (("a", 5), ("b", 5), ("c", 6)):
        assert main(["pack", "--simulate", "150", "--seed", str(seed), "--out", str(tmp_path / name)]) == 0
    a, b, c = ((tmp_path / name).read_bytes() for name in "abc")
    assert a == b
    assert a != c
    drawn = [one.curve for one in simulate(150, seed=5, prevalence=0.05)]
    assert all(one.force.tobytes() == two.force.tobytes() for one, two in zip(drawn, read(tmp_path / "a"), strict=True))


def test_parts_follow_each_other(tmp_path, monkeypatch):
    monkeypatch.setattr("daemon.archive.writer.PART_CURVES", 7)
    path = write(tmp_path / "a.h5", [Curve(np.arange(64.0) + number, "N") for number in range(30)])
    with start_workers(2) as workers:
        archive = Archive.open(path, workers)
        assert [part.curves for part in archive.parts] == [7, 7, 7, 7, 2]
        for first in (0, 1, 7, 29, 30):
            rows = [origin.path for portion in portions([archive, archive], first) for origin in portion.origins()]
            assert rows == [f"c{number % 30}" for number in range(first, 60)]
        prepared = [
            item
            for block in prepare_portions(portions([archive], 5), RasterProfile(), workers)
            for item in block.prepared
        ]
        assert len(prepared) == 25


def test_nobody_takes_an_archive_for_curves(packed, tmp_path, capsys, model):
    shutil.copy(packed, tmp_path / "lab.h5")
    for name in ("lab.h5", "lab.dat", "lab.000"):
        assert formats.find_reader(name, Blob(tmp_path / "lab.h5")) is None
    assert is_archive(tmp_path / "lab.h5")
    assert main(["score", str(tmp_path), "--model", model]) == 65
    assert "no force curve found" in capsys.readouterr().err


def test_hdf5_of_afmformats_is_still_read_as_curves(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["0/force"] = np.arange(10.0)
    assert not is_archive(tmp_path / "a.h5")
    assert formats.find_reader("a.h5", Blob(tmp_path / "a.h5")).format.name == "hdf5"


def test_a_pack_that_is_killed_leaves_nothing_that_looks_whole(tmp_path):
    out = tmp_path / "big.h5"
    command = [sys.executable, "-m", "daemon", "pack", "--simulate", "100000", "--out", str(out)]
    process = subprocess.Popen(command, cwd=ROOT, start_new_session=True)
    part = tmp_path / ".big.h5.part"
    while process.poll() is None and not (part.exists() and part.stat().st_size > 1_000_000):
        time.sleep(0.01)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert not out.exists()
    assert not is_archive(part)
    assert main(["pack", "--simulate", "10", "--out", str(out)]) == 0
    assert not part.exists()
    assert len(read(out)) == 10


def test_two_packs_do_not_write_the_same_file(tmp_path, capsys):
    out = tmp_path / "a.h5"
    with ArchiveWriter(out) as writer:
        for number, one in enumerate(simulate(3, 1)):
            writer.add(Origin(f"c{number}", 0, 1, None, 0, 0, one.curve.force_unit), one.curve)
        assert main(["pack", "--simulate", "10", "--out", str(out)]) == 74
        (line,) = capsys.readouterr().err.splitlines()
        assert "Resource temporarily unavailable" in line
        writer.finish()
    assert len(read(out)) == 3
    assert list(tmp_path.iterdir()) == [out]


def test_packing_says_what_cannot_be(tmp_path, packed, capsys):
    lab = tmp_path / "lab"
    lab.mkdir()
    out = str(tmp_path / "a.h5")
    for code, words, why in [
        (64, ["--out", out], "name files or folders"),
        (64, [str(lab), "--simulate", "3", "--out", out], "name files or folders"),
        (64, ["--simulate", "0", "--out", out], "1 or more"),
        (64, [str(lab), "--out", str(packed)], "exists already"),
        (64, [str(packed), "--out", out], "is an archive already"),
        (64, ["--simulate", "1", "--out", str(tmp_path / "no" / "a.h5")], "folder does not exist"),
        (65, [str(tmp_path / "nothing"), "--out", out], "no such file"),
        (65, [str(lab), "--out", out], "no force curve found"),
    ]:
        assert main(["pack", *words]) == code, words
        (line,) = capsys.readouterr().err.splitlines()
        assert why in line
    assert not list(tmp_path.glob("*a.h5*"))


@pytest.mark.parametrize("most_bytes", [0, 100_000])
def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path, capsys, most_bytes):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, before[1]))
    try:
        assert main(["pack", "--simulate", "10", "--out", str(tmp_path / "a.h5")]) == 74
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("a.h5: File too large; nothing was written")
    assert not list(tmp_path.iterdir())


def test_archives_are_scored_by_themselves(packed, lab, tmp_path, capsys):
    (tmp_path / "list").write_text("a\n")
    assert main(["score", str(packed), str(lab)]) == 64
    assert main(["score", str(packed), "--only", str(tmp_path / "list")]) == 64
    capsys.readouterr()


def edited(packed: Path, path: Path, edit) -> Path:
    """A copy in which h5py has changed something, with its first bytes as before."""
    shutil.copy(packed, path)
    with h5py.File(path, "r+") as file:
        edit(file)
    return path


def replaced(name: str, **words):
    def edit(file: h5py.File) -> None:
        part = file[PARTS]["000000"]
        values = words.pop("data", part[name][:])
        del part[name]
        part.create_dataset(name, data=values, **words)

    return edit


def elsewhere(file: h5py.File) -> None:
    part = file[PARTS]["000000"]
    count = part["force"].shape[0]
    del part["force"]
    part.create_dataset("force", (count,), "<f8", external=[("/etc/passwd", 0, h5py.h5f.UNLIMITED)])


DAMAGE = {
    "another version": (lambda file: file.attrs.modify(ATTRIBUTE, 2), "version 2"),
    "no attribute": (lambda file: file.attrs.__delitem__(ATTRIBUTE), "no archive"),
    "compressed": (replaced("force", compression="gzip"), "contiguous"),
    "other numbers": (replaced("force", dtype="<f4"), "force holds <f4"),
    "big end first": (replaced("curve", dtype=">i8"), "curve holds >i8"),
    "a column short": (replaced("curve", data=np.arange(3)), "curve has 3 entries"),
    "long words": (replaced("reason", data=np.array([b""] * 1, "S5000")), "reason holds"),
    "a part less": (lambda file: file.attrs.modify("curves", 10**6), "not all of its parts"),
    "a part away": (lambda file: file[PARTS].move("000000", "000007"), "part 000000 is missing"),
    "a column away": (lambda file: file[PARTS]["000000"].__delitem__("sha256"), "sha256 is missing"),
    "samples elsewhere": (elsewhere, "contiguous"),
    "no words": (lambda file: file[PARTS]["000000"]["notes"].__setitem__(slice(None), b"\xff"), "damaged: "),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_archive_is_one_line(packed, tmp_path, capsys, model, name):
    edit, why = DAMAGE[name]
    path = edited(packed, tmp_path / "damaged.h5", edit)
    assert main(["score", str(path), "--summary", "--model", model, "--engine", "torch"]) == 65
    (line,) = capsys.readouterr().err.splitlines()
    assert "damaged.h5: " in line
    assert why in line


@pytest.mark.parametrize("wrong", [-1, 2**62, 0])
def test_curves_that_end_elsewhere_are_refused(packed, tmp_path, wrong):
    def edit(file: h5py.File) -> None:
        file[PARTS]["000000"]["force_end"][3] = wrong

    with pytest.raises(BadArchive, match="outside their samples"):
        read(edited(packed, tmp_path / "damaged.h5", edit))


def test_approaches_that_cannot_be_are_refused(packed, tmp_path):
    for points, why in ((2**60, "more samples"), (50, "not the tenth")):

        def edit(file: h5py.File, points: int = points) -> None:
            file[PARTS]["000000"]["approach_points"][5] = points

        with pytest.raises(BadArchive, match=why):
            read(edited(packed, tmp_path / "damaged.h5", edit))


def test_whatever_bytes_are_damaged_there_is_no_traceback(tmp_path):
    """Bytes of HDF5's own structures changed at random: each time all curves, or one line about it."""
    sound = write(tmp_path / "a.h5", [Curve(np.arange(64.0), "N") for _ in range(3)]).read_bytes()
    path = tmp_path / "b.h5"
    random.seed(1)
    outcomes = set()
    workers = start_workers(1)
    for trial in range(120):
        damaged = bytearray(sound)
        if trial % 4 == 0:
            del damaged[random.randrange(600, len(damaged)) :]
        for _ in range(random.choice((1, 4, 40))):
            damaged[random.randrange(512, len(damaged))] = random.randrange(256)
        path.write_bytes(damaged)
        try:
            archive = Archive.open(path, workers)
            rows = [
                item
                for block in prepare_portions(portions([archive]), RasterProfile(), workers)
                for item in block.prepared
            ]
            assert len(rows) == archive.curves
            outcomes.add("read")
        except BadArchive as error:
            outcomes.add("refused" if "\n" not in str(error) else str(error))
        except WorkersBroken:
            workers.close()
            workers = start_workers(1)
    workers.close()
    assert outcomes == {"read", "refused"}


def test_another_archive_in_its_place_is_not_mixed_with_it(tmp_path):
    first, second = (
        write(tmp_path / f"{seed}.h5", [one.curve for one in simulate(600, seed)], with_distance=False)
        for seed in (1, 2)
    )
    with start_workers(1) as workers:
        archive = Archive.open(first, workers)
        coming = prepare_portions(portions([archive]), RasterProfile(), workers)
        block = next(coming)
        assert len(block.portion.origins()) == 512
        second.replace(first)
        with pytest.raises(BadArchive, match="has changed"):
            block.portion.origins()
    with start_workers(1) as workers, pytest.raises(BadArchive, match="has changed"):
        next(prepare_portions(portions([archive], 512), RasterProfile(), workers))


def test_a_file_cut_off_while_it_is_mapped_ends_a_worker_and_not_the_program(tmp_path, capsys, model):
    path = write(tmp_path / "a.h5", [Curve(np.random.default_rng(n).normal(size=20000), "N") for n in range(600)])
    with start_workers(1) as workers:
        archive = Archive.open(path, workers)
        coming = prepare_portions(portions([archive]), RasterProfile(), workers)
        next(coming)
        os.truncate(path, 4096)
        with pytest.raises((WorkersBroken, BadArchive)):
            list(coming)
