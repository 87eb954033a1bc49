# `make demo` and `make test` do all the set-up on a fresh machine: Linux, Python 3.10 or newer, a package registry.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
INSTALL := $(PIP) install -q -c constraints.txt
VIDEO ?=
EXPORT ?=
CALIBRATE ?=
JOBS ?= 2 # processes of the tests

.PHONY: demo test quick arm check docs format train gpu-check clean distclean

demo: $(VENV)/.runtime ## parse a real clip with three precisions; look at demo/report.html
	$(if $(EXPORT),$(MAKE) $(VENV)/.all)
	$(BIN)/python demo/run.py $(if $(VIDEO),--video $(VIDEO)) $(if $(EXPORT),--export) $(if $(CALIBRATE),--calibrate)

test: $(VENV)/.all check ## everything that runs on this machine; prints what was skipped and why
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile

quick: $(VENV)/.all ## the heart of it, in about a minute
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile -m "not slow" tests/core tests/runtime/test_parser.py tests/runtime/tail tests/runtime/track

arm: $(VENV)/.all ## programs for ARM into the user's cache, for the tests that run there by QEMU (a Debian; 430 MB)
	$(BIN)/python tests/support/arm_root.py

check: $(VENV)/.all build/links/qanet ## lint, format, types, links of the docs
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy -p qanet
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --site-dir build/site

docs: $(VENV)/.all build/links/qanet ## the guides and the reference as a site, in build/site
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --site-dir build/site

format: $(VENV)/.all
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

train: $(VENV)/.all ## the bundled model again: make train DATA=DIR (photos/, labels/, train.txt, val.txt)
	$(BIN)/qanet train ccp13-lite0 --data $(DATA)

gpu-check: $(VENV)/.all ## on a machine with an NVIDIA GPU: its tests, kernels and engines; writes benchmarks/results/
	$(BIN)/python -m qanet.benchmarks.gpu_check

# A stamp a set of extras: installed again when the pins or the metadata change.
$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

NATIVE := $(wildcard runtime/native/cpp/*.* runtime/native/cpp/*/*.*)

$(VENV)/.runtime: $(VENV)/bin/python constraints.txt pyproject.toml setup.py $(NATIVE)
	$(INSTALL) -e .
	@# Real TensorRT-RTX engines are built where its wheel installs (x86-64); elsewhere the demo goes on without.
ifdef NO_RTX
	@echo "note: tensorrt_rtx is left out (NO_RTX); no TensorRT-RTX engine can be built"
else
	@echo "note: installing tensorrt_rtx, NVIDIA's proprietary TensorRT for RTX, under its own licence; make NO_RTX=1 leaves it out"
	$(INSTALL) tensorrt_rtx || echo "note: no tensorrt_rtx wheel for this machine; TensorRT-RTX engines are left out"
endif
	touch $@

$(VENV)/.all: $(VENV)/.runtime
	$(INSTALL) torch==2.13.0
	$(INSTALL) -e '.[train,export,calib,test,dev,docs]'
	touch $@

# mypy cannot follow the editable install's mapping of folders; links show it the tree as installed.
build/links/qanet: $(VENV)/.all $(wildcard qanet/*)
	mkdir -p $@
	find $@ -type l -delete
	for entry in qanet/*; do ln -sfn ../../../$$entry $@/; done
	for stage in train export runtime calib benchmarks; do ln -sfn ../../../$$stage $@/$$stage; done
	touch $@

clean:
	rm -rf build demo/*.qanet demo/*.webm demo/*.json demo/*.jsonl demo/*.html demo/*.csv .pytest_cache .mypy_cache .ruff_cache

distclean: clean
	rm -rf $(VENV) demo/cache
