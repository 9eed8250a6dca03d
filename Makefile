# `make demo` and `make test` are all a newcomer needs; both set up .venv first and only once.
#
#   make demo INDEX_URL=URL                 take packages from another index (for example CPU-only wheels of torch)
#   make test PYTHON=python3.12             use another interpreter (3.11 or newer)
#   make test PYTEST_ARGS="-k chat"         hand arguments to pytest

PYTHON ?= python3
VENV ?= .venv
INDEX_URL ?=
PIP_ARGS ?=
PYTEST_ARGS ?= -n 2

BIN := $(VENV)/bin
# The versions hold for what is installed and for what builds the package (newer pips read the second name for that).
PIP := PIP_CONSTRAINT=constraints.txt PIP_BUILD_CONSTRAINT=constraints.txt \
	$(BIN)/python -m pip --disable-pip-version-check install --quiet \
	$(if $(INDEX_URL),--index-url $(INDEX_URL)) $(PIP_ARGS)
DECLARED := pyproject.toml constraints.txt CMakeLists.txt $(wildcard mimo_cli/quant/native/*)

.PHONY: demo test slow check format docs bench clean
.DELETE_ON_ERROR:

demo: $(VENV)/.installed
	$(BIN)/mimo chat --image examples/shapes.png "What is in this picture?"

test: $(VENV)/.installed
	$(BIN)/python -m pytest $(PYTEST_ARGS)

slow: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -m slow $(PYTEST_ARGS)

check: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest tests/structure

format: $(VENV)/.installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(VENV)/.installed
	$(BIN)/python -m docs.write_reference

bench: $(VENV)/.installed
	$(BIN)/mimo bench

clean:
	rm -rf $(VENV) build dist *.egg-info mimo_cli/quant/*.so .pytest_cache .hypothesis .ruff_cache .mypy_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Stamps: reinstalled when the declarations or the native sources change, untouched otherwise. The test tools are small,
# so that one installation, with one build of the native kernels, serves both `make demo` and `make test`.
$(VENV)/.created:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "mimo needs Python 3.11 or newer, found " + sys.version.split()[0] + "; name one with PYTHON=...")'
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.installed: $(VENV)/.created $(DECLARED)
	@echo "installing into $(VENV) (a minute or two the first time)"
	@$(PIP) --editable ".[test]"
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	@$(PIP) --editable ".[test,dev]"
	@touch $@
