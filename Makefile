# One command a purpose; the same by hand and in CI.
#   make demo    real curves triaged live, in two minutes      make check   lint, types, tests
#   make test    the test suite, but for what takes long       make bench   measured speed on this machine
#   make faults  long faults and kills                         make study-test  tests of the experiments
#   make soak    200,000 curves through all that goes wrong    make again   live verdicts against a second look
#
# TORCH_INDEX chooses where torch comes from. Default: the CPU build of the public PyTorch index, added to pip's own
# settings; with an NVIDIA card: make demo TORCH_INDEX=https://download.pytorch.org/whl/cu130
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
TORCH := torch==2.13.*
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
export PIP_DISABLE_PIP_VERSION_CHECK = 1
# Tests start hundreds of processes: without what Python keeps of a module, each would compile all of it anew, which
# makes `make test` half as long again. Some machines forbid it; here it is allowed.
export PYTHONDONTWRITEBYTECODE =

.PHONY: demo test check faults study-test soak again route schema bench study gpu gpu-pack model install lint tensorrt-rtx cluster clean

demo: install
	$(BIN)/afm-triage demo

test: install
	$(BIN)/python -m pytest -n 2 --dist loadfile

check: lint test

# What takes long; `make test` has a smoke of it. FAULTS='faults and not long' leaves out the longest.
# They wait more than they compute, so there are three at a time on two cores, and whoever is free takes the next one.
FAULTS ?= faults
faults: install
	$(BIN)/python -m pytest -m '$(FAULTS)' -n 3 --dist load --maxschedchunk 1

study-test: install
	$(BIN)/python -m pytest -m study -n 2 --dist loadfile

# 200,000 curves, kills, full disks, lost shares and swaps in 95 minutes; its page goes to build/soak.md.
SOAK ?=
soak: install
	mkdir -p build
	$(BIN)/python -m tests.faults.soak --page build/soak.md $(SOAK)

# 10,000 curves judged live, in any order and through kills, and then again from an archive: no verdict may differ.
again: install
	$(BIN)/python -m tests.faults.again

# Which modules a curve enters, and which forms it takes.
route: install
	$(BIN)/python -m tests.route

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The JSON Schemas of the events, from their types in daemon/ledger/events.py.
schema: install
	$(BIN)/python -c 'from daemon.ledger import events; events.write_schemas()'

# The shipped model again, as build/model: about 40 minutes of one core.
model: install
	$(BIN)/afm-triage train --simulate 240000 --epochs 3 --samples 3 --out build/coarse --replace
	$(BIN)/afm-triage train --simulate 120000 --init build/coarse --epochs 1 --rate 0.001 --seed 2 --samples 2 \
	  --name shipped --out build/model --replace

bench: install
	$(BIN)/afm-triage bench

# An experiment behind the shipped model again: make study TOPIC=losses ARGS="--work build/losses".
study: install
	$(BIN)/python -m tests.studies $(TOPIC) $(ARGS)

# Everything that only a machine with an NVIDIA GPU can tell: bits, speed, verdicts, swap, real faults; eight minutes.
gpu: install
	mkdir -p build
	$(BIN)/python -m tests.studies gpu --out build/gpu.json --page build/gpu.md $(ARGS)

# What such a machine lacks where it has no network and another Python: made here, run there (deploy/docs/developers.md).
gpu-pack: install
	$(BIN)/python -m tests.studies.gpu_pack --out build/gpu-pack $(ARGS)

# The TensorRT flavour that installs without a GPU too: then the tests convert and build the shipped network with it.
tensorrt-rtx: install
	$(BIN)/pip install -q -e '.[tensorrt-rtx]'

# Ray, for the tests of `score --cluster`; they are skipped without it.
cluster: install
	$(BIN)/pip install -q -e '.[cluster]'

install: $(STAMP)

# A build of torch that pip finds on this machine's own disk comes first; else TORCH_INDEX decides between CPU and CUDA.
$(STAMP): pyproject.toml Makefile
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "afm-triage needs Python 3.11 or newer")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -c 'import torch' 2>/dev/null \
	  || { test '$(origin TORCH_INDEX)' = file && $(BIN)/pip install -q --no-index --no-deps '$(TORCH)' 2>/dev/null; } \
	  || $(BIN)/pip install -q '$(TORCH)' --extra-index-url $(TORCH_INDEX)
	$(BIN)/pip install -q -e '.[dev]'
	touch $(STAMP)

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache
