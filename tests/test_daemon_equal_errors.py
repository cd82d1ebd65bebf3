"""A hundred equal errors are one line, with a count and the first three."""

from __future__ import annotations

from pathlib import Path

import pytest
from modelhelp import make_model

from daemon.cli import main
from daemon.common.errors import grouped


def test_few_stay_lines_of_their_own_in_their_order() -> None:
    lines = ["t row 2: a.txt: no such file; fix", "t row 3: names no path", "t row 4: b.txt: no such file; fix"]
    assert grouped(lines) == lines
    assert grouped([]) == []


def test_many_are_one_line_where_the_first_stood() -> None:
    lines = [f"t row {row}: day {row}/a.txt: no such file; fix" for row in range(2, 102)]
    odd = "t row 7: 'maybe' is no label"
    other = "u row 2: a.txt: no such file; fix"
    assert grouped([odd, *lines, other]) == [
        odd,
        "t: 100 rows, the first 2 (day 2/a.txt), 3 (day 3/a.txt), 4 (day 4/a.txt): no such file; fix",
        other,
    ]


def test_what_names_no_file_is_grouped_too() -> None:
    lines = [f"t row {row}: 'maybe{row}' is no label; write keep" for row in range(2, 7)]
    assert grouped(lines) == ["t: 5 rows, the first 2, 3, 4: 'maybe2' is no label; write keep"]
    keys = [f"key{at}: unknown key" for at in range(5)]
    assert grouped([*keys, "watch: is no folder"]) == [
        "key0, key1, key2 and 2 more: unknown key",
        "watch: is no folder",
    ]


def a_table(folder: Path, label: str = "keep") -> Path:
    folder.mkdir()
    rows = "".join(f"gone/{number}.txt,0,{label}\n" for number in range(100))
    (folder / "labels.csv").write_text("path,curve_index,label\n" + rows)
    return folder


@pytest.mark.parametrize("verb", ["train", "evaluate", "calibrate", "import"])
def test_a_table_of_a_hundred_files_that_are_gone_is_one_line(
    tmp_path: Path, verb: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, model = a_table(tmp_path / "lab", "keep" if verb != "import" else "perhaps"), tmp_path / "small"
    make_model(model)
    (tmp_path / "state").mkdir()
    words = {
        "train": ["--simulate", "10", "--labelled", str(folder), "--out", str(tmp_path / "new")],
        "evaluate": [str(model), str(folder)],
        "calibrate": [str(model), str(folder), "--out", str(tmp_path / "new")],
        "import": [str(folder / "labels.csv"), "--rater", "me", "--state", str(tmp_path / "state")],
    }[verb]
    assert main(["labels", verb, *words] if verb == "import" else [verb, *words]) == 65
    error = capsys.readouterr().err.splitlines()
    assert len(error) == (1 if verb != "import" else 2)
    assert "100 rows, the first 2" in error[0]
    assert not (tmp_path / "new").exists()


def test_a_configuration_of_a_hundred_unknown_keys_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "afm.toml"
    keys = "".join(f"zzzz{number} = 1\n" for number in range(100))
    file.write_text(f'watch = ["{tmp_path}"]\n{keys}')
    assert main(["check", str(file)]) == 78
    error = capsys.readouterr().err.splitlines()
    assert error[0].endswith("100 to correct")
    assert error[1].strip().startswith("✗ zzzz0, zzzz1, zzzz2 and 97 more: unknown key")
    assert len(error) == 2
