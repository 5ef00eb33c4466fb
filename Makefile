# make demo | test | bench | clean.   PYTHON= chooses the interpreter, PIP_ARGS= is passed to pip.
#   make demo PYTHON=python3.12 PIP_ARGS="--index-url URL-OF-YOUR-MIRROR"

PYTHON ?=
PIP_ARGS ?=
BIN := .venv/bin
# Nothing of the caller's environment may leak into ours.
unexport PYTHONPATH PYTHONHOME VIRTUAL_ENV
export PYTHON PIP_ARGS

.PHONY: demo test check bench clean

demo: .venv/ready-base
	$(BIN)/facerestore demo -o out/demo --photos examples/photos --faces examples/faces

test: check
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --durations=25 --durations-min=3

check: .venv/ready-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/basedpyright --pythonpath $(BIN)/python
	$(BIN)/lint-imports

bench: .venv/ready-base
	$(BIN)/python tests/bench/run.py

# The environment is made again only when what it is made of has changed.
.venv/ready-base .venv/ready-test: pyproject.toml constraints.txt .ci/setup
	@bash .ci/setup $(@:.venv/ready-%=%)

clean:
	rm -rf .venv out build dist .pytest_cache .ruff_cache .hypothesis .import_linter_cache
