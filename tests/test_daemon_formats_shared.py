"""The labelled real curves that lie beside the checkout: every file read, every curve the right way round, in time."""

from __future__ import annotations

import csv
import time
from collections import Counter
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from pace import allowed

from daemon.formats import open_file
from daemon.reading.ahead import find
from models.curve import Curve, Samples

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
pytestmark = pytest.mark.skipif(not SHARED.exists(), reason="the labelled real curves are not here")

#: Folder -> files and curves, from the table of the data's own README.
COUNTS = {
    "open/waite_livecell_txt": (264, 264),
    "open/fodis_cnga1_columns.txt": (1, 61),
    "open/fodis_jpk_processed": (5, 5),
    "open/fodis_bruker_txt": (2, 2),
    "open/forsdat_jpk_processed": (3, 3),
    "open/sofa_asylum_ibw": (120, 120),
    "open/polybrush_bruker_txt": (3, 3),
    "open/hooke_picoforce_000": (50, 50),
    "open/hooke_mfp3d_ibw": (12, 12),
    "open/hooke_jpk_2009": (1, 1),
    "nolicence/feather_asylum_csv": (10, 10),
    "nolicence/ev_jpk_export_txt": (20, 20),
    "nolicence/chromosome_bruker_000": (35, 35),
    "nolicence/gensmfs_asylum_ibw": (1, 1),
    "nolicence/liposome_jpk_raw": (4, 4),
    "nolicence/formats": (1, 1),
}
#: Files of which each is a kind of its own -> curves, from the same table; maps, force volumes and spectroscopies.
CURVES = {
    "bruker_nanoscope_export_multicolumn.txt": 1,
    "fmt-afm-workshop-fd_single_2021-10-22_14.16.csv": 1,
    "fmt-chiaro-txt_AEBP1_Indentation_002.txt": 1,  # goes and returns
    "fmt-hdf5-fd_version_0.13.3.h5": 1,
    "fmt-igor-fd_SiN_FD_plot.ibw": 1,
    "fmt-igor-fd_U3_3_p10004.ibw": 1,
    "fmt-jpk-cc_pr14-brain-2021.06.30.jpk-force": 1,
    "fmt-jpk-cl_calibration_force-save-2015.02.04-11.25.21.294.jpk-force": 1,
    "fmt-jpk-fd_2020.02.07-16.29.05.036.jpk-qi-data": 4,
    "fmt-jpk-fd_flipsign_2015.05.22-15.31.49.352.jpk-force": 1,
    "fmt-jpk-fd_map0d_extracted.jpk-force-map": 1,
    "fmt-jpk-fd_map2x2_extracted.jpk-force-map": 4,
    "fmt-jpk-fd_qi-data-2021.04.13.jpk-qi-series": 1,
    "fmt-jpk-fd_single-modified_2023.jpk-force": 1,
    "fmt-jpk-fd_spot3-0192.jpk-force": 1,
    "fmt-ntmdt-txt-fd_2015_01_17_gel4-0_1_mQ_adh_6B_Curve_DFL_Height_51.txt": 1,
    "fmt-tab-fd_version_0.13.3.tab": 1,
    "fsas_mica_fv.003": 256,
    "fsas_mica_fz.000": 1,
    "hooke_0x06130001": 1,
    "hooke_force-scan-cycle-contact-AbsoluteZForceSettings-3D-TIPSCANNER-1250682991660.jpk-force": 1,
    "hooke_force-scan-cycle-contact-RelativeForceSettings-3D-TIPSCANNER-1250682992080.jpk-force": 1,
    "hooke_picoforce.000": 1,
    "nanosurf_spectroscopy.nid": 100,
    "park_forcecurve_009.tiff": 7,
    "pyfmreader_single_32bit.spm": 1,
    "pyjibe_invalid_dataset.jpk-force": 1,
}


@cache
def curves_of(path: str) -> list[Curve]:
    return open_file(SHARED / path)


def labels() -> list[dict[str, str]]:
    with (SHARED / "labels.csv").open(newline="") as lines:
        return list(csv.DictReader(lines))


def test_every_file_yields_its_curves() -> None:
    """What must be there is; files that the data gains one day are no failure of ours."""
    files: Counter[str] = Counter()
    curves: Counter[str] = Counter()
    for arrival in find([SHARED]):
        group = next((group for group in COUNTS if arrival.path.startswith(group)), "")
        files[group] += 1
        curves[group] += len(curves_of(arrival.path)) if group else 0
    assert {group: (files[group], curves[group]) for group in COUNTS} == COUNTS


@pytest.mark.parametrize("name", CURVES)
def test_a_file_of_every_kind_yields_its_curves(name: str) -> None:
    assert len(curves_of(f"open/formats/{name}")) == CURVES[name]


def test_every_labelled_curve_is_there_with_its_samples() -> None:
    """Retract lengths agree with those counted by hand, except where that count took dwell for retract."""
    short = 0
    for row in labels():
        curve = curves_of(row["path"])[int(row["curve_index"])]
        assert np.isfinite(curve.force).all()
        assert curve.distance is None or np.isfinite(curve.distance).all()
        if not row["experiment"].startswith(("feather", "gensmfs")):
            short += abs(len(curve) - int(row["retract_points"])) > 3
    assert short == 0


def smoothed(force: Samples) -> Samples:
    width = max(len(force) // 200, 1)
    return np.convolve(force - np.median(force[-len(force) // 10 :]), np.full(width, 1 / width), "valid")


SYSTEMS = sorted(group for group in COUNTS if "formats" not in group and "waite" not in group)


@pytest.mark.parametrize("system", SYSTEMS)
def test_far_from_the_surface_events_pull_upwards(system: str) -> None:
    """After the contact part the largest deviation from the baseline is a pull, in every curve with an event."""
    wrong = []
    rows = [row for row in labels() if row["label"] == "keep" and row["path"].startswith(system)]
    for row in rows:
        curve = curves_of(row["path"])[int(row["curve_index"])]
        signal = smoothed(curve.force)
        noise = float(np.median(np.abs(np.diff(curve.force))))
        far = signal[np.flatnonzero(signal >= -noise)[0] :]
        if far.max() < -far.min():
            wrong.append(row["path"] + "#" + row["curve_index"])
    # One trace of 61 ends while the last domain is still held: its baseline is no baseline.
    assert wrong in ([], ["open/fodis_cnga1_columns.txt#60"])


def test_curves_without_a_baseline_rupture_downwards() -> None:
    """The live-cell pulls often end above the baseline, so it is the sudden falls that tell which way is pulling."""
    rows = [row for row in labels() if row["label"] == "keep" and "waite" in row["path"]]
    falls = starts = 0
    for row in rows:
        force = curves_of(row["path"])[0].force
        steps = force[45:] - force[40:-5]
        falls += -steps.min() > steps.max()
        starts += force[:4].mean() < np.median(force)
    assert starts >= len(rows) - 1
    assert falls > 0.8 * len(rows)


def test_contact_comes_first_and_distance_grows() -> None:
    for row in labels():
        curve = curves_of(row["path"])[int(row["curve_index"])]
        if curve.distance is not None:
            edge = max(len(curve) // 20, 1)
            assert curve.distance[-edge:].mean() > curve.distance[:edge].mean()


@pytest.mark.parametrize(
    "path",
    [
        "open/hooke_picoforce_000/20071120a_i27_t33.100",
        "open/hooke_mfp3d_ibw/Image0238.ibw",
        "open/formats/fmt-jpk-fd_spot3-0192.jpk-force",
        "nolicence/formats/nanoscope_v6_cell.021",
    ],
)
def test_the_approach_ends_where_the_retract_begins(path: str) -> None:
    """Time order of the approach: its end is in contact like the retract's start, unlike its own start."""
    (curve,) = curves_of(path)
    approach = curve.approach_force
    assert approach is not None
    start, end, contact = (float(np.mean(part)) for part in (approach[:20], approach[-5:], curve.force[:5]))
    assert abs(end - contact) < 0.35 * abs(start - contact)


#: Most milliseconds a curve may take, warm, read whole.
LIMITS_MS = {
    "nolicence/liposome_jpk_raw/pbs_009.jpk-force": 5.0,
    "open/fodis_jpk_processed/force-save-0441.jpk-force": 5.0,
    "open/formats/fmt-jpk-fd_single-modified_2023.jpk-force": 5.0,
    "open/formats/fmt-jpk-fd_map0d_extracted.jpk-force-map": 5.0,
    "open/hooke_picoforce_000/20071120a_i27_t33.100": 5.0,
    "nolicence/chromosome_bruker_000/PS220410_cr00051.000": 5.0,
    "open/formats/fmt-igor-fd_U3_3_p10004.ibw": 12.0,
    "nolicence/gensmfs_asylum_ibw/Image0000.ibw": 12.0,
    "open/formats/fmt-jpk-fd_2020.02.07-16.29.05.036.jpk-qi-data": 1.0,
    "open/formats/fsas_mica_fv.003": 1.0,
    "open/formats/nanosurf_spectroscopy.nid": 1.0,
    "open/formats/park_forcecurve_009.tiff": 2.0,
}


@pytest.mark.parametrize("path", LIMITS_MS)
def test_reading_is_fast(path: str) -> None:
    """The best of some tries: a busy machine says nothing about the reader."""
    best_s = float("inf")
    for _ in range(12):
        began_s = time.perf_counter()
        count = len(open_file(SHARED / path))
        best_s = min(best_s, (time.perf_counter() - began_s) / count)
    assert best_s * 1000 < allowed(LIMITS_MS[path])
