import pytest

from daemon.labels.table import plain_path, read_csv, read_index


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_what_spreadsheets_save_reads_the_same(separator, end, mark):
    lines = ["Path, Label ,note".replace(",", separator), "a.txt,keep,ü".replace(",", separator), separator * 2, "", ""]
    sheet = read_csv((mark + end.join(lines)).encode())
    assert sheet.columns == ("path", "label", "note")
    assert sheet.rows == ((2, {"path": "a.txt", "label": "keep", "note": "ü"}),)


def test_short_rows_are_filled_and_long_ones_cut():
    assert read_csv(b"path,label\na\nb,keep,more,still\n").rows == (
        (2, {"path": "a", "label": ""}),
        (3, {"path": "b", "label": "keep"}),
    )


def test_a_quoted_line_end_counts_into_the_line_numbers():
    rows = read_csv(b'path,note\na,"one\ntwo"\nb,\n').rows
    assert [number for number, _ in rows] == [3, 4]
    assert rows[0][1]["note"] == "one\ntwo"


def test_other_encodings_are_refused_in_words():
    with pytest.raises(ValueError, match="save it as CSV UTF-8"):
        read_csv("path,label\nü.txt,keep\n".encode("latin-1"))


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("day1\\a.txt", "day1/a.txt"),
        (".\\day1\\a.txt", "day1/a.txt"),
        (" ./day1/./a.txt ", "day1/a.txt"),
        ("/data//day1/a.txt", "/data/day1/a.txt"),
        ("a.txt", "a.txt"),
        ("", ""),
    ],
)
def test_paths_are_those_of_a_listing(text, plain):
    assert plain_path(text) == plain


def test_an_index_counts_from_0():
    assert [read_index(text) for text in ("", " 7 ", "0")] == [0, 7, 0]


@pytest.mark.parametrize("text", ["-1", "one", "1.0", "²", "9" * 10])
def test_an_index_is_a_number(text):
    with pytest.raises(ValueError, match="count from 0"):
        read_index(text)


@pytest.mark.parametrize("note", ["\u2028", "\x85", "\x0c", "\x1d"])
def test_only_line_ends_end_a_line(note):
    rows = read_csv(f"path,note,label\na,x{note}y,keep\nb,,discard\n".encode()).rows
    assert [(number, cells["label"]) for number, cells in rows] == [(2, "keep"), (3, "discard")]


@pytest.mark.parametrize("text", ['path,note\na,"oops\nb,x\n', 'path,note\na,"oops\nb,"x"\n'])
def test_an_open_quote_swallows_no_rows(text):
    with pytest.raises(ValueError, match="save it as CSV UTF-8"):
        read_csv(text.encode())
