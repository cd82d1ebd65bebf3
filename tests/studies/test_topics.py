"""Every study can be asked for its options, and the program says where the studies are."""

import pytest

from daemon.cli import main
from tests.studies.__main__ import TOPICS
from tests.studies.__main__ import main as study

pytestmark = pytest.mark.smoke


@pytest.mark.parametrize("topic", TOPICS)
def test_every_study_says_what_it_can_be_asked(topic, capsys):
    with pytest.raises(SystemExit) as end:
        study([topic, "--help"])
    assert end.value.code == 0
    said = capsys.readouterr().out
    assert f"tests.studies {topic}" in said
    assert "--" in said.replace("--help", "")


def test_a_study_that_is_not_there_is_a_mistake_in_the_words(capsys):
    assert study(["astrology"]) == 64
    assert "astrology" in capsys.readouterr().err


def test_the_program_says_where_the_studies_are(capsys):
    assert main(["study", "losses"]) == 64
    assert "make study TOPIC=" in capsys.readouterr().err
