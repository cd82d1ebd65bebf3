"""The collector: the events of many instruments become one set of tables, each decision once.

A folder of tables holds ``decisions`` (a :class:`daemon.tables.dataset.Dataset`), ``labels`` and ``sessions``: of each
instrument one Parquet file, ``labels/instrument=NAME/labels.parquet``, which is replaced whole. A file of DuckDB holds
tables of these three names.
"""

from __future__ import annotations

from pathlib import Path

DECISIONS, LABELS, SESSIONS = "decisions", "labels", "sessions"


def bring_up_to_date(tables: Path, state: Path) -> int:
    """Bring what is new in the ledger and the labels of ``state`` into the folder ``tables``; how many decisions came.

    The folder is made if need be, and without a service. Raises UserError 69 where there is no ledger, 73 while another
    process writes these tables, 74 where they cannot be written.
    """
    raise NotImplementedError
