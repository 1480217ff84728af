# The course's commands. `make` alone lists them. Everything they need is installed
# into .venv (and .venv-colab) the first time, and reused after that.

PYTHON  ?= python3
PORT    ?= 8888
# BROWSER=no serves without opening one.
BROWSER ?= yes
# LESSON=03 (or "03 05") limits `make notebooks` and `make check-notebooks`.
LESSON  ?=
# How many tests run side by side; each uses one thread.
JOBS    ?= 2
# What `make test-colab` runs: NOTEBOOKS=notebooks/03_rope.ipynb is quicker.
NOTEBOOKS ?= $(wildcard notebooks exercises solutions)

# A file's tests, and a notebook's cells, stay together and in order.
SIDE   := -n $(JOBS) --dist loadfile
VENV   := .venv
COLAB  := .venv-colab
PIP    := -m pip --disable-pip-version-check install --quiet
ifeq ($(OS),Windows_NT)
BIN := Scripts
else
BIN := bin
endif
PY       := $(VENV)/$(BIN)/python
COLAB_PY := $(COLAB)/$(BIN)/python

# Learners' shells may set these; they would lead Python to other packages.
unexport PYTHONPATH PYTHONHOME

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help lab work test lint unit test-colab test-notebooks notebooks \
        check-notebooks pull badges bench bench-gpu

help:  ## list the targets
	@echo "make TARGET, where TARGET is one of"
	@sed -n 's/^\([a-z-]*\):[^#]*## /  \1 :/p' $(firstword $(MAKEFILE_LIST)) \
	  | awk -F' :' '{printf "%-18s %s\n", $$1, $$2}'

# --- environments -----------------------------------------------------------

# A stamp is younger than all that it was made from, so nothing is installed twice.
$(PY):
	@command -v $(PYTHON) >/dev/null 2>&1 || { \
	  echo "There is no $(PYTHON) here. Install Python 3.11 or newer, or name one:" \
	       "make PYTHON=/path/to/python3"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "The course needs Python 3.11 or newer; $(PYTHON) is" \
	       "$$($(PYTHON) -V 2>&1). Name another one: make PYTHON=python3.12"; exit 1; }
	@echo "Making the environment $(VENV): a few minutes, once"
	@$(PYTHON) -m venv $(VENV) || { rm -f $(PY); \
	  echo "On Debian and Ubuntu, venv is a package: apt install python3-venv"; exit 1; }

$(VENV)/.course: requirements.txt constraints.txt pyproject.toml | $(PY)
	$(PY) $(PIP) -r requirements.txt -c constraints.txt
	$(PY) $(PIP) --no-deps --editable .
	@touch $@

# Some tests need more: a browser's driver, and what they compare with.
$(VENV)/.test: $(VENV)/.course
	$(PY) $(PIP) -c constraints.txt playwright trl deepseek-recipe
	@touch $@

# First Colab's own packages, then ours, as on Colab: see tools/colab.py.
$(COLAB)/.course: constraints-colab.txt pyproject.toml | $(VENV)/.course
	@test -x $(COLAB_PY) || { $(PY) -m venv $(COLAB) && \
	  echo "Making the environment $(COLAB): a few minutes, once"; }
	$(COLAB_PY) $(PIP) $$($(PY) -m tools.colab image) -c constraints-colab.txt
	$(COLAB_PY) $(PIP) --editable . -c constraints-colab.txt
	@touch $@

# --- reading ----------------------------------------------------------------

lab: $(VENV)/.course  ## open the course in JupyterLab (PORT=8888, BROWSER=no)
	@$(PY) tools/lab.py --port $(PORT) $(if $(filter no,$(BROWSER)),--no-browser)

work: $(VENV)/.course  ## copy exercises into work/ where you have none yet
	@$(PY) -m tools.notebooks work

# --- testing ----------------------------------------------------------------

test:  ## everything: lint, unit tests, Colab's versions, all notebooks
	@$(MAKE) --no-print-directory lint
	@$(MAKE) --no-print-directory unit
	@$(MAKE) --no-print-directory test-colab
	@$(MAKE) --no-print-directory test-notebooks

lint: $(VENV)/.course  ## ruff
	$(PY) -m ruff check .

unit: $(VENV)/.test  ## the tests that are not notebooks
	$(PY) -m pytest $(SIDE) tests --slowest 10
	TRITON_INTERPRET=1 $(PY) -m pytest $(SIDE) tests/kernels --slowest 10

test-notebooks: $(VENV)/.course  ## run every notebook, compare what it prints
	$(PY) -m pytest $(SIDE) --nbval notebooks solutions exercises --slowest 10

test-colab: $(COLAB)/.course  ## the same on Colab's versions (NOTEBOOKS=...)
	$(COLAB_PY) tools/colab.py check
	$(COLAB_PY) -m pytest $(SIDE) --nbval $(NOTEBOOKS) --slowest 10

bench: $(VENV)/.course  ## measure on this machine's CPU
	$(PY) benchmarks/cpu.py

# The system's Python, whose PyTorch knows the GPU; the environment's is for CPUs.
bench-gpu:  ## check and measure the kernels on this machine's GPU (DRY=1, RECORD=1)
	$(PYTHON) benchmarks/gpu.py $(if $(DRY),--dry-run) $(if $(RECORD),--record)

# --- writing ----------------------------------------------------------------

notebooks: $(VENV)/.course  ## build from lessons/ (LESSON=03, FORCE=1, OVERWRITE=1)
	@$(PY) -m tools.notebooks build $(LESSON) \
	  $(if $(FORCE),--force) $(if $(OVERWRITE),--overwrite)

check-notebooks: $(VENV)/.course  ## compare notebooks with lessons/ and the rules
	@$(PY) -m tools.notebooks check $(LESSON)

need-%:
	@test -n "$($*)" || { echo "This target needs $*=..., see \`make help\`"; exit 1; }

pull: need-NOTEBOOK $(VENV)/.course  ## bring an edit made in Jupyter to lessons/ (NOTEBOOK=...)
	@$(PY) -m tools.notebooks pull "$(NOTEBOOK)"

badges: need-REPO $(VENV)/.course  ## write the public address everywhere (REPO=owner/name)
	@$(PY) -m tools.badges "$(REPO)" $(if $(BRANCH),--branch "$(BRANCH)") \
	  $(if $(REF),--ref "$(REF)")
