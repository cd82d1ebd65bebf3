"""The time of a measurement: what files state is read, and what they cannot mean is none."""

from __future__ import annotations

import io
import json
import re
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import formathelp
import h5py
import numpy as np
import pytest
from makers import a_retract

from daemon.formats import dates, open_file
from daemon.formats.afmcurve import compact_copy_of, pack, unpack
from daemon.formats.hdf5 import Hdf5Reader
from daemon.formats.text import read as read_text
from daemon.reading.pool import ReaderPool
from daemon.sources import Arrival
from daemon.sources.message import Refused, check_same, content_of, parse
from models.clock import rfc3339
from models.curve import Curve
from models.raster import RasterProfile

BUNDLED = Path(__file__).resolve().parents[1] / "daemon" / "curves"
SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
#: A stamp in a name, as JPK's and AFM Workshop's programs put it there.
_STAMP = re.compile(r"(20\d\d)[.-](\d\d)[.-](\d\d)(?:[-_](\d\d)\.(\d\d)(?:\.(\d\d))?)?")


@pytest.fixture(autouse=True)
def in_berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A computer whose time is not UTC, so that the two cannot be taken for each other."""
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def said(text: str) -> str | None:
    when = dates.moment(text)
    return None if when is None else rfc3339(when)


@pytest.mark.parametrize(
    ("text", "utc"),
    [
        ("2021-06-11 09:46:29.745 +0200", "2021-06-11T07:46:29.745Z"),  # JPK
        ("2021-06-11T09:46:29Z", "2021-06-11T09:46:29.000Z"),
        ("2021-06-11 09:46:29", "2021-06-11T07:46:29.000Z"),  # of this computer, in summer
        ("2021-01-11 09:46", "2021-01-11T08:46:00.000Z"),  # and in winter
        ("11:17:04 AM Mon Jan 27 2014", "2014-01-27T10:17:04.000Z"),  # NanoScope
        ("12:00:04 AM Mon Jan 27 2014", "2014-01-26T23:00:04.000Z"),
        ("Fri, May 29, 2009 4:31:57 PM", "2009-05-29T14:31:57.000Z"),  # Igor, English
        ("2010 05 06 11:45:08", "2010-05-06T09:45:08.000Z"),  # Igor, elsewhere
        ("22 October 2020 14:16:20", "2020-10-22T12:16:20.000Z"),  # AFM Workshop
        ("Fri Dec 16 16:25:37 CET 2022", "2022-12-16T15:25:37.000Z"),  # Java
        ("Mon Oct 19 15:02:36 IDT 2020", "2020-10-19T12:02:36.000Z"),
        ("2022:11:30 15:26:47", "2022-11-30T14:26:47.000Z"),  # TIFF
        ("29-05-2013 15:16:40", "2013-05-29T13:16:40.000Z"),  # only one of the two can be a month
        ("05/29/2013 15:16:40", "2013-05-29T13:16:40.000Z"),
        ("12.12.2013 15:16:40", "2013-12-12T14:16:40.000Z"),
    ],
)
def test_what_files_write_is_read(text: str, utc: str) -> None:
    assert said(text) == utc


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1601-01-01 00:00:00",  # the zeros of clocks
        "1904-01-01 00:00:00",
        "1970-01-01 00:00:00 +0000",
        "2050-01-01 10:00:00.000 +0000",
        "2094-15-25 11:49:00",  # a month of no year, as the members of a JPK zip have it
        "2021-02-30 11:49:00",
        "2021-06-11 25:00:00",
        "2021-06-11 11:49:62",
        "2021-06-11 13:00:00 PM",
        "2021-06-11T09",
        "2021-06-11",  # a day is no time
        "11:49:00",
        "10-12-2020 15:16:40",  # December or October
        "03.04.2021 15:16:40",
        "11 juin 2021 09:46:29",  # in no language that is known
        "11. März 2021 09:46:29",
        "Fri Dec 16 16:25:37 IST 2022",  # of India, Israel or Ireland
        "0000-00-00 00:00:00",
        "9999-12-31 23:59:59 -2300",
        "2021-06-11 09:46:29 +9900",
        "2021-06-11 09:46:29 and what follows",
        "x" * 10_000,
        "9" * 60,
    ],
)
def test_what_nobody_can_tell_is_no_time(text: str) -> None:
    assert said(text) is None


def test_a_day_ahead_is_a_wrong_clock_and_more_is_nonsense() -> None:
    now = time.time()
    assert dates.plausible(now + 80_000) == now + 80_000
    assert dates.plausible(now + 90_000) is None
    assert dates.plausible(float("nan")) is None
    assert dates.plausible(None) is None


def test_seconds_since_1904_are_of_the_clock_on_the_wall() -> None:
    """As Igor counts them: whatever the language in which it writes the date."""
    wall = (datetime(2010, 5, 6, 11, 45, 8) - datetime(1904, 1, 1)).total_seconds()
    assert dates.since_1904(wall) == datetime(2010, 5, 6, 9, 45, 8, tzinfo=UTC).timestamp()
    assert dates.since_1904(1e300) is dates.since_1904(0.0) is dates.since_1904(None) is None
    assert dates.since_1904(float("nan")) is None


TABLE = "\n".join(f"{-i * 1e-9:.4e}\t{1e-10 * np.sin(i):.4e}" for i in range(300)) + "\n"


@pytest.mark.parametrize(
    ("header", "utc"),
    [
        ("# Date: 2021-06-11 09:46:29\n", "2021-06-11T07:46:29.000Z"),
        ("Date\t22 October 2020\nTime\t14:16:20\n", "2020-10-22T12:16:20.000Z"),
        ("Acquired,2021-06-11T09:46:29Z,\n", "2021-06-11T09:46:29.000Z"),
        ("#k:0.1,Time:1/15/40 PM,VerDate:130096,Date:2015-10-02,Seconds:1\n", "2015-10-02T11:15:40.000Z"),
        ("# Datum: 11.06.2021 09:46:29\n", None),
        ("# date: 2021-06-11\n", None),
        ("# VerDate: 2021-06-11 09:46:29\n", None),  # of a program
        ("# Export date: 2021-06-11 09:46:29\n", None),
        ("# nothing of the kind\n", None),
    ],
)
def test_a_date_line_above_a_table_dates_its_curves(header: str, utc: str | None) -> None:
    (curve,) = read_text(header + "distance (m)\tforce (N)\n" + TABLE)
    assert (curve.acquired_s and rfc3339(curve.acquired_s)) == utc


def _dated(folder: Path) -> list[Path]:
    return [file for file in sorted(folder.rglob("*")) if file.is_file() and _STAMP.search(file.name)]


def _agrees(file: Path, curve: Curve) -> bool:
    """Whether a curve was measured within the minute (or on the day) that the name of its file states."""
    found = _STAMP.search(file.name)
    assert found is not None
    assert curve.acquired_s is not None
    when = datetime.fromtimestamp(curve.acquired_s)
    if found[4] is None:
        return when.strftime("%Y.%m.%d") == ".".join(found.group(1, 2, 3))
    stamp = datetime(*map(int, (*found.group(1, 2, 3, 4, 5), found[6] or 0)))
    return abs((when - stamp).total_seconds()) < 61


#: Whose name has another day than its content: the year was mistyped, or the file was written again.
_OTHER = ("fmt-afm-workshop-fd_single_2021-10-22", "fmt-ntmdt-txt", "pr14-brain")


def test_names_of_bundled_curves_agree_with_what_they_state() -> None:
    files = [file for file in _dated(BUNDLED) if not file.name.startswith(_OTHER)]
    curves = {file.name: open_file(file)[0] for file in files}
    assert len(curves) >= 3
    assert [name for name, curve in curves.items() if not _agrees(BUNDLED / name, curve)] == []
    assert rfc3339(open_file(BUNDLED / "force-save-0441.jpk-force")[0].acquired_s or 0) == "2016-05-05T16:31:54.983Z"
    assert open_file(BUNDLED / "waite_set1_120.txt")[0].acquired_s is None


def test_names_of_more_curves_agree_with_what_they_state() -> None:
    files = [file for file in _dated(SHARED) if not any(other in file.name for other in _OTHER)]
    if not files:
        pytest.skip("the curves that are not bundled are not here")
    assert len(files) >= 20
    assert [file.name for file in files if not _agrees(file, open_file(file)[0])] == []


@pytest.mark.parametrize("bare", [False, True])
def test_each_curve_of_a_map_has_its_own_time(bare: bool) -> None:
    """Also where the samples stay behind."""
    (file,) = BUNDLED.glob("*.jpk-qi-data")
    with ReaderPool(1, profile=RasterProfile(), bare=bare) as pool:
        readings = pool.read(Arrival("score", file.name, file, final=True)).readings
        (later,) = pool.read(Arrival("score", file.name, BUNDLED / "waite_set1_120.txt", final=True)).readings
    times = [reading.acquired_s for reading in readings]
    assert len(set(times)) == 4
    assert times == sorted(time_s or 0 for time_s in times)
    assert later.acquired_s is None


def a_curve(acquired_s: float | None) -> Curve:
    force, distance = a_retract()
    return Curve(force=force, force_unit="N", distance=distance, distance_kind="piezo", acquired_s=acquired_s)


def test_a_copy_carries_the_time_of_its_original() -> None:
    assert unpack(compact_copy_of(a_curve(1.6e9 + 0.125), RasterProfile(), None))[0].acquired_s == 1.6e9 + 0.125
    assert unpack(pack(a_curve(None)))[0].acquired_s is None
    assert unpack(pack(a_curve(-11644473600.0)))[0].acquired_s is None  # 1601: who wrote it did not know better
    line, _, payload = pack(a_curve(1.6e9)).partition(b"\n")
    header = json.loads(line)
    del header["acquired_s"]
    assert unpack(json.dumps(header).encode() + b"\n" + payload)[0].acquired_s is None  # a copy of before


HEADER = {
    "id": "c1",
    "name": "a",
    "dtype": "<f8",
    "force_unit": "N",
    "pulling": "positive",
    "distance_grows": "away",
}


def _sent(**more: object) -> list[bytes]:
    force = np.linspace(0, 1e-9, 100)
    return [json.dumps({**HEADER, **more}).encode(), force.tobytes(), force.tobytes()]


def test_a_sender_may_say_when_it_measured() -> None:
    message = parse(_sent(acquired="2026-11-20T11:59:58.5+01:00"))
    assert message.curve.acquired_s == datetime(2026, 11, 20, 10, 59, 58, 500_000, tzinfo=UTC).timestamp()
    assert unpack(content_of(message))[0].acquired_s == message.curve.acquired_s
    assert parse(_sent()).curve.acquired_s is parse(_sent(acquired=None)).curve.acquired_s is None
    here = parse(_sent(acquired="2026-06-20T11:59:58")).curve.acquired_s
    assert here == datetime(2026, 6, 20, 9, 59, 58, tzinfo=UTC).timestamp()
    assert parse(_sent(acquired="1601-01-01T00:00:00Z")).curve.acquired_s is None  # a wrong clock loses no curve


@pytest.mark.parametrize(
    "value", ["", "yesterday", 1.6e9, True, [], {}, "2026-11-20", "2026-13-20T11:59:58Z", "x" * 99]
)
def test_a_time_that_is_none_is_refused_in_one_line(value: object) -> None:
    with pytest.raises(Refused, match=r"^acquired: .*2026-11-20T11:59:58Z") as caught:
        parse(_sent(acquired=value))
    assert "\n" not in caught.value.args[0]


def test_the_time_is_no_part_of_what_makes_a_curve_the_same(tmp_path: Path) -> None:
    """A script that sends again may look at the clock again."""
    first, again = (parse(_sent(acquired=f"2026-11-20T11:59:5{at}Z")) for at in range(2))
    file = tmp_path / "c1.afmcurve"
    file.write_bytes(content_of(first))
    check_same(again, file)
    with pytest.raises(Refused, match="another curve"):
        check_same(parse(_sent(force_unit="m")), file)


def _hdf5(place: str, **attributes: object) -> list[Curve]:
    content = io.BytesIO()
    with h5py.File(content, "w") as file:
        force, distance = a_retract()
        file["pull 1/retract/force"], file["pull 1/retract/distance"] = force, distance
        file[place].attrs.update(attributes)
    return formathelp.read(Hdf5Reader(), content.getvalue(), name="x.h5")


@pytest.mark.parametrize("place", ["pull 1/retract/force", "pull 1", "/"])
def test_hdf5_says_it_beside_the_numbers_or_above_them(place: str) -> None:
    at = datetime(2021, 6, 11, 7, 46, 29, tzinfo=UTC).timestamp()
    assert _hdf5(place, Date="2021-06-11", time=np.bytes_(b"09:46:29"))[0].acquired_s == at
    assert _hdf5(place, **{"Start time (ns)": np.int64(at * 1e9)})[0].acquired_s == at
    assert _hdf5(place, **{"Export time (ns)": np.int64(at * 1e9), "date": 7})[0].acquired_s is None
