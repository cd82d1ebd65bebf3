"""Studies: the experiments behind the choices of the shipped model, each repeatable with one command.

A study is a module here with ``add_arguments(parser)`` and ``run(args) -> exit code``; it prints a table, and with
``--out FILE.json`` also writes what the table was made from. ``afm-triage study TOPIC`` runs it.
"""
