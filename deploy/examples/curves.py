"""The kept curves in afmformats, from the folder of `afm-triage collect --copy kept`.

python curves.py kept

nanite reads with afmformats: `nanite.IndentationGroup(file)` takes the same files. What it does not read is told, and
stands in the HDF5 file of `afm-triage collect --archive kept.h5`, which any HDF5 program opens.
"""

import logging
import sys
from pathlib import Path

import afmformats
import pandas as pd

logging.getLogger("afmformats").setLevel(logging.CRITICAL)  # else a traceback for every file that it does not know
folder = Path(sys.argv[1])
table = pd.read_csv(folder / "curves.csv")
for row in table[table.content == "file"].itertuples():  # a compact copy (.afmcurve) is this program's own format
    try:
        curve = afmformats.load_data(folder / row.file)[row.curve]
        force_pn = curve["force"][curve["segment"] == curve["segment"].max()] * 1e12  # of the retract
    except (Exception, afmformats.errors.AFMFileFormatError) as error:  # its own are none of Python's Exception
        print(f"{row.path}: not read by afmformats ({type(error).__name__})")
        continue
    print(f"{row.path} curve {row.curve}: {len(force_pn)} samples, {force_pn.min():.0f} to {force_pn.max():.0f} pN")
