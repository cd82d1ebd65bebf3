"""The report of an evaluation: lines for a terminal, and one page with pictures that loads nothing from anywhere."""

from daemon.training.report.page import write_html
from daemon.training.report.text import write_text

__all__ = ["write_html", "write_text"]
