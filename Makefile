# Every target makes its own environment in .venv; nothing but Python 3.11+ is needed beforehand.
# constraints.txt pins torch 2.13.0. Its CPU build (2.13.0+cpu) is preferred wherever pip can see
# it; to show it where, use pip's own settings, e.g.
#   PIP_EXTRA_INDEX_URL=<PyTorch's index of CPU builds> make demo

PYTHON ?= python3
VENV ?= .venv
PIP_FLAGS ?=
PYTEST_FLAGS ?= -n auto --maxprocesses 4
BENCH_FLAGS ?=

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check -q
READY := $(VENV)/.ready
CATS := case_studies/cats/model.pt

.PHONY: demo test lint types bench case-studies wheel clean

demo: $(READY)
	@echo "== Can a label change when every parameter may move by 0.01?"
	@$(BIN)/paramrob check $(CATS) --delta 0.01; status=$$?; \
	if [ $$status -ne 1 ]; then \
		echo "check: expected exit code 1 (refuted with a witness), got $$status" >&2; exit 1; fi
	@echo "== How far can the confidence move?"
	@$(BIN)/paramrob estimate $(CATS) epsilon --delta 0.01
	@echo "== How close to the boundary must a cat be for its label to change?"
	@$(BIN)/paramrob estimate $(CATS) sigma --delta 0.01
	@echo "== Beside Table 1 of arXiv 1903.10672"
	@$(BIN)/python case_studies/cats/table1.py

test: $(READY)
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(PYTEST_FLAGS)

lint: $(READY)
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .

types: $(READY)
	@$(BIN)/mypy

bench: $(READY)
	@OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.epsilon $(BENCH_FLAGS)

# The paper's case studies on the committed models: proved anew, tables and pictures rewritten;
# then the release gate of edge_gate.
case-studies: $(READY)
	@$(BIN)/python -m case_studies.cats.table1
	@OMP_NUM_THREADS=1 $(BIN)/python -m case_studies.athletes.seeds
	@$(BIN)/python -m case_studies.tables
	@OMP_NUM_THREADS=1 $(BIN)/python -m case_studies.gallery
	@OMP_NUM_THREADS=1 $(BIN)/python -m case_studies.edge_gate.gate

# A wheel built from this tree and installed in an empty environment answers.
wheel: $(READY)
	@set -e; folder=$$(mktemp -d); trap 'rm -rf "$$folder"' EXIT; \
	$(PIP) wheel --no-deps --no-build-isolation -w "$$folder" .; \
	$(BIN)/python -m venv "$$folder/empty"; \
	"$$folder/empty/bin/python" -m pip --disable-pip-version-check -q install $(PIP_FLAGS) \
		-c constraints.txt "$$folder"/*.whl; \
	cd "$$folder" && empty/bin/paramrob --version

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis

$(READY): pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { \
		echo "$(PYTHON) not found: install Python 3.11 or newer, or make PYTHON=/path/to/python" >&2; \
		exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "paramrob needs Python 3.11 or newer, and this is " + sys.version.split()[0] + ": make PYTHON=/path/to/python3.11")'
	@echo "making the environment $(VENV) ..."
	@$(PYTHON) -m venv --clear $(VENV)
	@$(PIP) install $(PIP_FLAGS) -c constraints.txt pip hatchling editables setuptools
	@$(PIP) install $(PIP_FLAGS) -c constraints.txt --no-build-isolation -e . --group dev
	@touch $(READY)
