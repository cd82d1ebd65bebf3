"""A histogram of rupture forces from the table of `afm-triage collect --csv kept.csv`.

python ruptures.py kept.csv

Of a table of `--decimal comma`: pd.read_csv(…, sep=";", decimal=",") and .str.replace(",", ".") before the split.
Where the files say no spring constant: `collect --spring-constant 0.06`, or rupture_deflections_nm
times yours in pN/nm.
"""

import sys

import pandas as pd

table = pd.read_csv(sys.argv[1])
forces = table.rupture_forces_pn.astype(str).str.split().explode().astype(float).dropna()  # pN, one a rupture
if forces.empty and table.rupture_deflections_nm.notna().any():
    sys.exit("no force: the files say no spring constant; collect a new table, with --spring-constant N/m")
histogram = forces.value_counts(bins=range(0, 525, 25), sort=False)
print(histogram.to_string())
print(f"{len(forces)} ruptures of {len(table)} curves, median {forces.median():.0f} pN")
