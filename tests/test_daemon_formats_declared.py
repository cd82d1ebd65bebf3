"""A format is declared once, by its reader: what everybody else needs to know of it is asked for there.

To add one: a module with its reader, its line in ``daemon.formats.READERS``, a row of deploy/docs/files.md, a sample.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from makers import a_retract
from makers_vendors import make_hdf5, make_nid, make_park
from test_daemon_formats_images import IMAGES

from daemon.formats import FORMATS, NAMES, READERS, Format, Names, Reader, find_reader, open_file
from daemon.formats.afmcurve import pack
from daemon.formats.base import Blob
from daemon.reading.ahead import find
from models.curve import Curve

ROOT = Path(__file__).resolve().parents[1]
SAMPLES = ROOT / "tests" / "samples"
PAGE = ROOT / "deploy" / "docs" / "files.md"
BUNDLED = ROOT / "daemon" / "curves"
BINARY = [reader for reader in READERS if reader.format.name != "text"]
each_reader = pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.format.name)


def suffixes_of(one: Format) -> tuple[str, ...]:
    return (*one.suffixes, *one.shared_suffixes, *one.image_suffixes, *one.unread_suffixes)


@each_reader
def test_the_page_of_files_has_its_row(reader: Reader) -> None:
    row = f"| {reader.format.instrument} | {reader.format.files} |"
    assert row in PAGE.read_text().splitlines(), f"write into {PAGE.name}, Which files it reads:\n{row}"


@each_reader
def test_the_page_of_files_names_every_suffix(reader: Reader) -> None:
    text, one = PAGE.read_text().lower(), reader.format
    if one.name == "text":
        return  # under any name
    for suffix in (*one.suffixes, *one.shared_suffixes):
        assert f"`{suffix}`".lower() in one.files.lower() + one.instrument.lower(), f"name {suffix} in {one.name}.files"
    for suffix in (*one.image_suffixes, *one.unread_suffixes):
        assert f"`{suffix}`" in text, f"{PAGE.name}, below the table: say what becomes of {suffix} ({one.name})"


def made(folder: Path) -> list[Path]:
    """Samples of formats of which no small file may be kept here, written like an instrument's."""
    force, distance = a_retract(256)
    contents = {
        "made.nid": make_nid(),
        "made.tiff": make_park([(force, distance)]),
        "made.h5": make_hdf5({"retract/force": force, "retract/height": distance}, {"retract/force": "N"}),
        "made.afmcurve": pack(Curve(force, "N", distance, "piezo")),
    }
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return [folder / name for name in contents]


@each_reader
def test_there_is_a_sample_which_it_reads(reader: Reader, tmp_path: Path) -> None:
    name = reader.format.name
    kept = [arrival.file for arrival in find([folder for folder in (BUNDLED, SAMPLES) if folder.is_dir()])]
    there = [*kept, *made(tmp_path)]
    samples = [file for file in there if (found := find_reader(file.name, Blob(file))) and found.format.name == name]
    assert samples, f"put a small file of format {name} into {SAMPLES.relative_to(ROOT)}, or make one in made()"
    curves = open_file(samples[0])
    assert curves
    assert all(curve.force_unit for curve in curves)


@pytest.mark.parametrize("reader", BINARY, ids=lambda reader: reader.format.name)
def test_what_shares_its_suffixes_with_images_shows_one(reader: Reader) -> None:
    """That they are known as images: test_daemon_formats_images.py."""
    one = reader.format
    told = f"{one.name} shares suffixes with images: put one into IMAGES of test_daemon_formats_images.py"
    assert not one.shared_suffixes or any(map(one.is_named, IMAGES)), told


def test_a_suffix_is_declared_by_one_reader_in_small_letters() -> None:
    declared = [(suffix, one.name) for one in FORMATS for suffix in suffixes_of(one)]
    for suffix, name in declared:
        assert re.fullmatch(r"\.[a-z0-9.\-N]+", suffix), f"{name}: {suffix}: small letters, N for a digit"
        assert [other for again, other in declared if again == suffix] == [name], f"{suffix} is declared twice"
    for one in FORMATS:
        assert {*one.map_suffixes} <= {*one.suffixes, *one.shared_suffixes}, f"{one.name}: maps are of its suffixes"
        assert one.pair is None or one.pair.first.endswith((*one.suffixes, *one.shared_suffixes)), one.name
    assert len({one.name for one in FORMATS}) == len(FORMATS)


#: What writes a file has to say how it is called.
WRITERS = {"daemon/verbs/simulate.py"}


def test_nobody_keeps_a_list_of_suffixes_beside_the_declarations() -> None:
    """Only of binary formats: ``.txt`` and ``.csv`` are everybody's."""
    declared = {suffix for reader in BINARY for suffix in suffixes_of(reader.format) if "N" not in suffix}
    declared |= {half for one in FORMATS if one.pair for half in (one.pair.first, one.pair.second)}
    homes = {type(reader).__module__ for reader in READERS}
    for path in sorted((ROOT / "daemon").rglob("*.py")):
        name = path.relative_to(ROOT).as_posix()
        if name.removesuffix(".py").replace("/", ".") in homes or name in WRITERS:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                told = f"{name}:{node.lineno} spells {node.value} again; ask formats.NAMES or the reader's format"
                assert node.value not in declared, told


def test_a_new_format_is_known_to_names_by_its_declaration_alone() -> None:
    new = Format(
        "new",
        suffixes=(".new", ".new-map"),
        shared_suffixes=(".nNN",),
        image_suffixes=(".new-image",),
        unread_suffixes=(".old",),
        map_suffixes=(".new-map",),
        quiet_s=0.25,
    )
    names = Names((new, *FORMATS))
    assert [names.claim(f"a{end}") for end in (".NEW", ".new-map", ".n07", ".new-image", ".old")] == [
        *(True, True, None, None, False)
    ]
    assert [names.is_likely(f"a{end}") for end in (".new", ".n07", ".new-image")] == [True, True, False]
    assert [names.quiet_s(f"a{end}") for end in (".new", ".n07", ".other")] == [0.25, 0.25, 2.0]
    assert [names.is_map(name) for name in ("a.new-map", "a.new", "a.jpk-qi-data")] == [True, False, True]
    assert (NAMES.claim("a.new"), NAMES.quiet_s("a.new")) == (None, 2.0)
