"""Studies: the experiments behind the choices of the shipped model, each repeatable with one command.

A study is a module here with a frozen dataclass ``Options`` and ``run(options) -> exit code``; it prints a table, and
with ``--out FILE.json`` also writes what the table was made from. ``make study TOPIC=…`` runs it, or ``python -m
tests.studies TOPIC`` with its options. They belong to the repository, not to the program that is installed.
"""
