"""An hour as a laboratory has them all in a year: `python -m tests.faults.soak --page FILE` (make soak)."""
