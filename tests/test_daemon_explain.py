"""`explain`: a picture of any curve that can be read, its reason where there is no score, one line for a mistake."""

from __future__ import annotations

import hashlib
import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from makers import make_ibw_pair, make_jpk
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import imread
from modelhelp import make_model

from daemon.cli import main
from daemon.config import ThresholdsConfig
from daemon.explain import Explanation, Trace, explain, find_reading, sentences, share, thin, trace_of
from daemon.explain.picture import (
    APPROACH,
    BASELINE,
    Form,
    _amount,
    _curve,
    _mark_ruptures,
    _told_ruptures,
    along,
    draw,
)
from daemon.formats import open_file
from daemon.formats.afmcurve import pack
from daemon.judging.judge import judge_of, load_model
from daemon.judging.registry import Registry
from daemon.labels.curve_name import sha256_of
from daemon.ledger import Ledger
from models.bundle import read
from tests.ledgerhelp import decision

CURVES = Path(__file__).resolve().parents[1] / "daemon" / "curves"
SAWTOOTH = CURVES / "force-save-0441.jpk-force"
VOLTS = CURVES / "fmt-jpk-cl_calibration_force-save-2015.02.04-11.25.21.294.jpk-force"
MAP = CURVES / "fmt-jpk-fd_2020.02.07-16.29.05.036.jpk-qi-data"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("model") / "small"
    make_model(folder)
    return str(folder)


@pytest.fixture(scope="module")
def sawtooth() -> Explanation:
    model = load_model("shipped")
    return explain(find_reading(SAWTOOTH, 0), model, judge_of(model, ThresholdsConfig()))


def text_file(folder: Path, count: int, name: str = "curve.txt") -> Path:
    rows = "".join(f"{i * 1e-9:.3e}\t{i * 1e-12:.3e}\n" for i in range(count))
    (folder / name).write_text("distance [m]\tforce [N]\n" + rows)
    return folder / name


def pixels(png: bytes) -> np.ndarray:
    image = imread(io.BytesIO(png), format="png")
    assert image.shape[:2] == (700, 1200)
    return image[..., :3]


def test_a_picture_is_written_and_its_verdict_told(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "here.png"
    assert main(["explain", str(MAP), "--curve", "3", "--out", str(out), "--model", model]) == 0
    assert pixels(out.read_bytes()).std() > 0.02
    assert list(tmp_path.iterdir()) == [out]
    said = capsys.readouterr().out
    assert main(["score", str(MAP), "--model", model]) == 0
    verdict, score = capsys.readouterr().out.splitlines()[3].split()[:2]
    line, told = said.strip().rsplit(" ", 1)
    assert line == f"{out}: {MAP}#3: {verdict}, score"
    assert float(told) == pytest.approx(float(score), abs=6e-5)  # with more digits, where it is small


def test_a_curve_is_explained_by_its_name_from_the_copy_when_its_file_is_gone(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    watched, out = tmp_path / "watched", tmp_path / "x.png"
    copy = pack(open_file(SAWTOOTH)[0])
    ledger = Ledger(tmp_path / "ledger.sqlite", "afm1")
    flagged = {"verdict": "review", "compact_copy": copy, "path": "run7/gone #1.txt", "folder": str(watched)}
    kept = flagged | {"verdict": "keep", "path": "run7/gone too.txt"}
    discarded = {"verdict": "discard", "path": "run7/kept.txt", "folder": str(watched)}
    ledger.record([decision(1, **flagged), decision(2, **kept), decision(3, **discarded)])
    ledger.close()

    def said(name: str) -> tuple[int, str]:
        code = main(["explain", name, "--out", str(out), "--model", model, "--state", str(tmp_path)])
        told = capsys.readouterr()
        return code, told.out or told.err

    for name in ("run7/gone #1.txt#0", "run7/gone #1.txt", f"{watched}/run7/gone #1.txt#0"):
        code, told = said(name)
        assert (code, told.startswith(f"{out}: run7/gone #1.txt#0: ")) == (0, True), told
    code, told = said("run7/gone too.txt")
    assert (code, told.startswith(f"{out}: run7/gone too.txt#0: ")) == (0, True), told
    code, told = said("run7/kept.txt#0")
    assert (code, told.count("\n")) == (65, 1)
    assert "run7/kept.txt#0: its file is gone or does not answer" in told
    (watched / "run7").mkdir(parents=True)
    (watched / "run7" / "kept.txt").write_bytes(SAWTOOTH.read_bytes())
    code, told = said("run7/kept.txt")
    assert (code, told.startswith(f"{out}: run7/kept.txt#0: ")) == (0, True), told


def test_the_heat_lies_on_the_last_rupture_of_a_sawtooth(sawtooth: Explanation) -> None:
    """A published pull of a membrane protein: the last of its peaks falls by 330 pN at 278 of 1000 nm."""
    attention, trace = sawtooth.attention, trace_of(sawtooth)
    assert sawtooth.decision.verdict == "keep"
    assert attention is not None
    assert attention.peak is not None
    assert (trace.x_unit, trace.y_label) == ("nm", "force (pN)")
    assert abs(trace.x[round(attention.peak)] - 278) < 50
    assert trace.heat[round(attention.peak)] == pytest.approx(1.0, abs=0.2)
    assert float(np.nanmax(trace.y)) == pytest.approx(335, abs=15)
    assert attention.map.shape == attention.picture.shape == (128, 256)


def explained(folder: Path, force: np.ndarray, distance: np.ndarray) -> Explanation:
    folder.mkdir(exist_ok=True)
    file = folder / "curve.jpk-force"
    file.write_bytes(make_jpk(force, distance))
    model = load_model("shipped")
    return explain(find_reading(file, 0), model, judge_of(model, ThresholdsConfig()))


def drawn(trace: Trace) -> tuple[float, float, Axes]:
    axes = Figure().add_subplot()
    _curve(axes, trace, 1.0)
    return (*axes.get_ylim(), axes)


@pytest.mark.parametrize("push_nn", [1.0, 500.0])
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_the_whole_retract_lies_within_the_axes_whatever_its_sign(tmp_path: Path, sign: float, push_nn: float) -> None:
    """An event of the wrong sign is what somebody looks for who asks why a curve was discarded."""
    curve = open_file(SAWTOOTH)[0]
    assert curve.distance is not None
    force = curve.force.copy()
    force[:30] -= np.linspace(push_nn * 1e-9, 0.0, 30)
    trace = trace_of(explained(tmp_path, sign * force, curve.distance))
    bottom, top, axes = drawn(trace)
    beyond = trace.y[80:]  # the push ends after 12 nm
    assert bottom < beyond.min() <= beyond.max() < top
    if sign > 0:  # and the push, which would press it flat, is told instead
        assert trace.y.min() < bottom
        assert any("goes on below, to -" in text.get_text() for text in axes.texts)
        assert beyond.max() - beyond.min() > 0.6 * (top - bottom)
    else:
        assert bottom < trace.y.min() <= trace.y.max() < top


def test_a_retract_of_the_wrong_sign_without_a_push_is_all_there(tmp_path: Path) -> None:
    curve = open_file(SAWTOOTH)[0]
    assert curve.distance is not None
    trace = trace_of(explained(tmp_path, -curve.force[400:], curve.distance[400:]))
    bottom, top, axes = drawn(trace)
    assert trace.y.min() < -300
    assert bottom < trace.y.min() <= trace.y.max() < top
    assert not [text for text in axes.texts if "push" in text.get_text()]


def test_the_dashed_line_and_the_approach_have_names(sawtooth: Explanation) -> None:
    *_, axes = drawn(trace_of(sawtooth))
    legend = axes.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == [BASELINE, APPROACH]


def test_what_is_warm_is_red(sawtooth: Explanation) -> None:
    image = pixels(draw(sawtooth))
    warm = (image[..., 0] > 0.55) & (image[..., 1] < 0.25) & (image[..., 2] < 0.25)
    columns = np.flatnonzero(warm[130:345].any(0))  # the curve, below the words
    assert sawtooth.attention is not None
    assert sawtooth.attention.peak is not None
    assert columns.size
    assert abs(np.median(columns) - (82 + 1097 * sawtooth.attention.peak / 4095)) < 10


def test_the_same_curve_is_the_same_picture(sawtooth: Explanation) -> None:
    assert draw(sawtooth) == draw(sawtooth)


def test_ruptures_are_marked_where_they_are_with_their_force(sawtooth: Explanation) -> None:
    """The teeth of the membrane protein; the last falls by 290 pN at 259 nm between tip and sample."""
    assert [round(one.position_nm, -1) for one in sawtooth.ruptures] == [150, 190, 200, 220, 260]
    trace = trace_of(sawtooth)
    axes = Figure().add_subplot()
    _curve(axes, trace, 1.0)
    _mark_ruptures(axes, trace, sawtooth.ruptures)
    (rings,) = [line for line in axes.lines if line.get_marker() == "o"]
    assert [abs(x - one.position_nm) < 0.01 for x, one in zip(rings.get_xdata(), sawtooth.ruptures, strict=True)]
    last = sawtooth.ruptures[-1]
    assert last.force_pn == pytest.approx(300, abs=25)
    assert f"{last.force_pn:.3g} pN" in [text.get_text() for text in axes.texts]
    assert _told_ruptures(sawtooth).startswith(f"5 ruptures, the highest {last.force_pn:.3g} pN")
    assert [_amount(value, "pN", 2) for value in (48_990.0, 335.4, -0.0)] == ["49 nN", "340 pN", "-0 pN"]


@pytest.mark.parametrize(("form", "head"), [("svg", b"<?xml"), ("pdf", b"%PDF")])
def test_a_picture_in_lines_is_the_same_each_time(sawtooth: Explanation, form: Form, head: bytes) -> None:
    drawn = draw(sawtooth, form)
    assert drawn.startswith(head)
    assert drawn == draw(sawtooth, form)


def test_of_a_folder_each_curve_is_drawn_and_a_bad_one_is_told(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lab, out = tmp_path / "lab", tmp_path / "out"
    for folder in ("one", "two"):
        (lab / folder).mkdir(parents=True)
        text_file(lab / folder, 200)
    (lab / "two" / "bad.jpk-force").write_bytes(b"PK\x03\x04 no zip at all")
    assert main(["explain", str(lab), "--out", str(out), "--model", model]) == 65
    assert sorted(file.name for file in out.iterdir()) == ["curve.txt-2.png", "curve.txt.png"]
    told = capsys.readouterr()
    assert told.out.count("\n") == 2
    assert "bad.jpk-force: curve 0 cannot be read" in told.err
    both = [str(lab / folder / "curve.txt") for folder in ("one", "two")]
    assert main(["explain", *both, "--out", str(out), "--model", model]) == 0
    (tmp_path / "none").mkdir()
    assert main(["explain", str(tmp_path / "none"), "--out", str(out), "--model", model]) == 65


def test_a_curve_is_explained_by_the_model_of_that_day_and_never_into_a_watched_folder(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    watched, out, state = tmp_path / "watched", tmp_path / "x.png", tmp_path / "state"
    watched.mkdir()
    file = text_file(watched, 200)
    sha256, id = hashlib.sha256(file.read_bytes()).hexdigest(), read(Path(model)).id
    Registry(state / "models").keep(read(Path(model)))
    ledger = Ledger(state / "ledger.sqlite", "afm1")
    asked = {"path": "curve.txt", "folder": str(watched), "sha256": sha256}
    judge = replace(decision(1).judge, model=id)
    ledger.record([replace(decision(1, **asked), judge=judge), decision(2, **asked | {"path": "gone.txt"})])
    ledger.close()
    (state / "watched.json").write_text(json.dumps({"watch": [str(watched)]}))
    words = ["--state", str(state), "--out"]
    assert main(["explain", str(file), *words, str(watched / "x.png")]) == 64
    assert "lies in the watched folder" in capsys.readouterr().err
    assert main(["explain", str(file), *words, str(out)]) == 0
    told = capsys.readouterr()
    assert (told.err, out.is_file()) == ("", True)
    file.write_bytes(file.read_bytes() + b"2e-9\t1e-12\n")
    assert main(["explain", str(file), *words, str(out)]) == 0
    assert "the file has changed since it was judged" in capsys.readouterr().err


def test_a_curve_without_a_score_is_drawn_with_its_reason(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, file = tmp_path / "short.png", text_file(tmp_path, 30)
    assert main(["explain", str(file), "--out", str(out), "--model", model]) == 0
    assert capsys.readouterr().out == f"{out}: {file}#0: review, no score\n"
    assert pixels(out.read_bytes()).std() > 0.02


def test_units_are_those_that_the_file_has(model: str) -> None:
    judging = load_model(model)
    judge = judge_of(judging, ThresholdsConfig())
    volts = trace_of(explain(find_reading(VOLTS, 0), judging, judge))
    bare = trace_of(explain(find_reading(CURVES / "waite_set1_16.txt", 0), judging, judge))
    assert volts.y_label == "deflection (mV)"
    assert 10 < np.nanmax(np.abs(volts.y)) < 10_000
    assert bare.x_label == "sample of the retract"
    assert bare.y_label == "force (the file names no unit)"


@pytest.mark.parametrize(
    ("name", "words", "code", "said"),
    [
        ("none.txt", [], 65, "no such file"),
        (".", [], 64, "several curves make several pictures; name a folder for them"),
        ("empty.txt", [], 65, "empty"),
        ("note.pdf", [], 65, "no force curve"),
        ("aZSNSR.IBW", [], 65, "is the second half of a pair; name the first, aDefl.ibw"),
        ("curve.txt", ["--curve", "1"], 65, "one curve"),
        ("curve.txt", ["--curve", "-1"], 64, "from 0"),
        ("curve.txt", ["--out", "curve.txt"], 64, ".png"),
        ("curve.txt", ["--out", "no/folder/x.png"], 64, "no/folder/x.png: its folder does not exist; make it first"),
        ("curve.txt", ["--model", "no-such"], 65, "no-such"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing(
    name: str, words: list[str], code: int, said: str, model: str, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    text_file(tmp_path, 200)
    (tmp_path / "empty.txt").touch()
    for half, content in zip(("aDefl.ibw", "aZSNSR.IBW"), make_ibw_pair(), strict=True):
        (tmp_path / half).write_bytes(content)
    (tmp_path / "note.pdf").write_bytes(b"%PDF-1.7 no curve at all")
    before = sorted(path.name for path in tmp_path.iterdir())
    assert main(["explain", name, "--out", "x.png", "--model", model, *words]) == code
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert said in error
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_a_pair_in_any_mix_of_case_is_scored_packed_labelled_and_explained_alike(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lab = tmp_path / "lab"
    lab.mkdir()
    contents = make_ibw_pair()
    for half, content in zip(("aDefl.ibw", "aZSNSR.IBW"), contents, strict=True):
        (lab / half).write_bytes(content)
    sha256 = hashlib.sha256(b"".join(contents)).hexdigest()
    assert sha256_of(lab / "aDefl.ibw") == sha256
    for asked in (lab, lab / "aDefl.ibw"):
        assert main(["score", "--json", str(asked), "--model", model]) == 0
        assert json.loads(capsys.readouterr().out)["sha256"] == sha256
    assert main(["pack", str(lab), "--out", str(tmp_path / "lab.h5")]) == 0
    assert capsys.readouterr().out.startswith("1 curves")
    assert main(["score", "--json", str(tmp_path / "lab.h5"), "--model", model]) == 0
    assert json.loads(capsys.readouterr().out)["sha256"] == sha256
    assert main(["explain", str(lab / "aDefl.ibw"), "--out", str(tmp_path / "x.png"), "--model", model]) == 0
    assert open_file(lab / "aDefl.ibw")[0].distance is not None


def test_a_name_is_drawn_as_it_is(model: str, tmp_path: Path) -> None:
    """No formula in a dollar, no complaint about letters that the font lacks, no escape codes."""
    file, out = text_file(tmp_path, 300, "5$_x^{2} 力曲线 \x1b[31m.txt"), tmp_path / "x.png"
    assert main(["explain", str(file), "--out", str(out), "--model", model]) == 0
    assert out.is_file()


def test_a_long_curve_is_thinned_to_its_extremes(sawtooth: Explanation) -> None:
    trace = trace_of(sawtooth)
    chosen = thin(trace, most=200)
    assert chosen.shape[0] <= 400
    assert (np.diff(chosen) > 0).all()
    assert trace.y[chosen].max() == trace.y.max()
    assert trace.y[chosen].min() == trace.y.min()
    assert np.array_equal(thin(trace, most=5000), np.arange(trace.y.shape[0]))


def test_every_reason_but_the_score_itself_is_told_in_words() -> None:
    assert sentences(["score", "no_contact"]) == ["no push against the surface was found"]


def test_a_score_is_never_rounded_to_a_certainty_and_the_gauge_grows_with_it() -> None:
    assert [share(value) for value in (0.99997, 0.9731, 0.00208, 7.3e-7, 1.0)] == [
        "> 0.999",
        "0.973",
        "0.00208",
        "7e-07",
        "1",
    ]
    places = [along(score) for score in (0.0, 1e-4, 0.01, 0.5, 0.99, 1.0)]
    assert places == sorted(places)
    assert (places[0], places[3], places[-1]) == (0.0, 0.5, pytest.approx(1.0))
