import json
import shutil
import struct
from dataclasses import replace

import msgspec
import numpy as np
import pytest
from modelhelp import SMALL, make_model
from safetensors.numpy import load_file, save_file

from models import bundle
from models.bundle import SHIPPED, BadBundle, read, write


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return make_model(tmp_path_factory.mktemp("bundle") / "small")


@pytest.fixture
def folder(made, tmp_path):
    return shutil.copytree(made.folder, tmp_path / "copy")


def edit(folder, change):
    manifest = json.loads((folder / "manifest.json").read_text())
    change(manifest)
    (folder / "manifest.json").write_text(json.dumps(manifest))


def seal(folder):
    """Make the hashes right again, as somebody who tampers would."""
    import hashlib

    def change(manifest):
        for name in manifest["sha256"]:
            manifest["sha256"][name] = hashlib.sha256((folder / name).read_bytes()).hexdigest()

    edit(folder, change)


def test_what_was_written_is_read(made):
    again = read(made.folder)
    assert again.id == made.id
    assert again.id.startswith("small-")
    assert again.profile == SMALL
    assert again.width == 4
    assert again.manifest.score_basis == "simulation"
    assert again.certificate is None
    assert sorted(path.name for path in made.folder.iterdir()) == ["card.md", "manifest.json", "weights.safetensors"]
    assert all(np.array_equal(again.weights[name], made.weights[name]) for name in made.weights)


def test_what_only_a_newer_version_knows_is_passed_over_and_kept(made, folder, tmp_path):
    def change(manifest):
        manifest["guard"] = {"since": "v2"}
        manifest["network"]["depth"] = 18
        manifest["calibration"]["curve"] = "isotonic"

    edit(folder, change)
    parent = read(folder)
    assert (parent.manifest, parent.stored["guard"]) == (made.manifest, {"since": "v2"})
    child = write(
        tmp_path / "child",
        parent.weights,
        msgspec.structs.replace(parent.manifest, calibration=replace(parent.calibration, bias=-1.0)),
        "# child\n",
        parent=parent,
    )
    assert (child.stored["guard"], child.stored["network"]["depth"]) == ({"since": "v2"}, 18)
    assert "curve" not in child.stored["calibration"]  # it was of another calibration
    assert child.calibration.bias == -1.0


def test_pipeline_names_every_stage(made):
    stages = dict(stage.split(":", 1) for stage in made.pipeline.split("|"))
    assert stages["raster"] == SMALL.id
    assert stages.keys() == {"raster", "weights", "calibration", "thresholds"}


def test_the_id_covers_every_byte(made, folder):
    with (folder / "card.md").open("a") as card:
        card.write("\n")
    with pytest.raises(BadBundle, match=r"card.md differs from its SHA-256"):
        read(folder)
    seal(folder)
    assert read(folder).id != made.id


@pytest.mark.parametrize("name", ["weights.safetensors", "card.md", "manifest.json"])
def test_a_missing_file_is_named(folder, name):
    (folder / name).unlink()
    with pytest.raises(BadBundle, match=name):
        read(folder)


def test_one_flipped_bit_in_the_weights_is_noticed(folder):
    path = folder / "weights.safetensors"
    data = bytearray(path.read_bytes())
    data[-100] ^= 1
    path.write_bytes(data)
    with pytest.raises(BadBundle, match="differs from its SHA-256"):
        read(folder)


def test_weights_that_are_not_finite_are_refused(folder):
    path = folder / "weights.safetensors"
    weights = load_file(path)
    weights["layer3.0.conv1.weight"][0, 0, 0, 0] = np.nan
    save_file(weights, path)
    seal(folder)
    with pytest.raises(BadBundle, match=r"layer3.0.conv1.weight is not finite"):
        read(folder)


@pytest.mark.parametrize("how", ["missing", "extra", "shape", "kind"])
def test_weights_of_another_network_are_refused(folder, how):
    path = folder / "weights.safetensors"
    weights = load_file(path)
    if how == "missing":
        del weights["fc.bias"]
    elif how == "extra":
        weights["fc2.bias"] = np.zeros(1, np.float16)
    elif how == "shape":
        weights["fc.bias"] = np.zeros(2, np.float16)
    else:
        weights["fc.bias"] = np.zeros(1, np.int32)
    save_file(weights, path)
    seal(folder)
    with pytest.raises(BadBundle, match="fc"):
        read(folder)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x80\x04cos\nsystem\n(S'touch /tmp/owned'\ntR.",  # a pickle
        struct.pack("<Q", 1 << 40) + b"{}",
        struct.pack("<Q", 2 << 20) + b" " * (2 << 20),
        struct.pack("<Q", 2) + b"{}",
        struct.pack("<Q", 4) + b"[[[[",
    ],
)
def test_what_is_no_safetensors_file_is_refused(folder, data):
    (folder / "weights.safetensors").write_bytes(data)
    seal(folder)
    with pytest.raises(BadBundle, match="weights"):
        read(folder)


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m.pop("profile"),
        lambda m: m["profile"].pop("rows"),
        lambda m: m["thresholds"].update(discard=0.9, keep=0.1),
        lambda m: m["thresholds"].update(keep="high"),
        lambda m: m["calibration"].update(temperature=0.0),
        lambda m: m["calibration"].update(bias=float("inf")),
        lambda m: m["calibration"].update(bias=10**400),
        lambda m: m["network"].update(width=float("inf")),
        lambda m: m.pop("training"),
        lambda m: m.pop("name"),
        lambda m: m.update(training="none"),
        lambda m: m.update(training={"labelled": "titin"}),
        lambda m: m.update(training={"curves": 5}),
        lambda m: m["calibration"].update(prevalence=1.0),
        lambda m: m["network"].update(width=10**9),
        lambda m: m["network"].update(architecture="resnet50"),
        lambda m: m.update(score_basis="faith"),
        lambda m: m.update(certificate="yes"),
        lambda m: m.update(sha256={}),
        lambda m: m["sha256"].update({"../../etc/passwd": "0"}),
        lambda m: m.update(format=99),
    ],
)
def test_a_damaged_manifest_is_one_clear_line(folder, change):
    edit(folder, change)
    with pytest.raises(BadBundle) as caught:
        read(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[]", "[" * 100_000, " " * (2 << 20)])
def test_a_manifest_that_is_no_object_is_refused(folder, text):
    (folder / "manifest.json").write_text(text)
    with pytest.raises(BadBundle, match=r"manifest.json"):
        read(folder)


def test_writing_replaces_as_one_act(made, folder):
    second = msgspec.structs.replace(made.manifest, name="second")
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    with pytest.raises(BadBundle, match=r"holds a model; .*--replace"):
        write(folder, made.weights, second, "# second\n")
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before
    replaced = write(folder, made.weights, second, "# second\n", replaces=True)
    assert read(folder).id == replaced.id
    assert [path.name for path in folder.parent.iterdir()] == ["copy"]


def test_a_failed_write_leaves_the_old_model(made, folder):
    before = read(folder).id
    bad = {**made.weights, "fc.bias": np.full(1, np.nan, np.float32)}
    with pytest.raises(BadBundle):
        write(folder, bad, made.manifest, "# bad\n")
    assert read(folder).id == before
    assert [path.name for path in folder.parent.iterdir()] == ["copy"]


def test_the_shipped_model_is_whole_and_small():
    bundle = read(SHIPPED)
    assert bundle.manifest.score_basis == "simulation"
    assert sum(path.stat().st_size for path in SHIPPED.iterdir()) < 25e6
    evidence = bundle.manifest.thresholds.evidence
    assert evidence["events_discarded"] <= evidence["most_missed"] * evidence["events"]
    assert "simulation alone" in (SHIPPED / "card.md").read_text()


def test_a_manifest_without_digests_is_refused(folder):
    """Else its weights would be checked by nobody, and be those of every other one that has none."""
    edit(folder, lambda manifest: manifest.pop("sha256"))
    with pytest.raises(BadBundle, match="names no SHA-256"):
        read(folder)


def test_weights_that_change_while_they_are_read_are_refused(folder, monkeypatch):
    whole = bundle._manifest

    def meanwhile(*words):
        data = (folder / "weights.safetensors").read_bytes()
        (folder / "weights.safetensors").write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
        return whole(*words)

    monkeypatch.setattr(bundle, "_manifest", meanwhile)
    with pytest.raises(BadBundle, match="changes while it is read"):
        read(folder)
