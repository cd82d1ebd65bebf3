"""One module a verb: ``Options``, a frozen dataclass of what can be asked for, and ``run(options) -> exit code``."""
