# Each target does its own set-up: Python >= 3.11, make and git are enough.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
WORKERS ?= auto
MINUTES ?= 30
PARITY = $(shell grep -rlE "importorskip|torchvision_peer" tests --include="test_*.py")

.PHONY: demo test test-slow fuzz faults test-parity docs lint clean

demo: $(VENV)/.installed  ## install, train LeNet-5 on the embedded digits, say how well and where
	$(BIN)/python launch.py train digits_lenet5

test: $(VENV)/.test  ## install what tests need, and pass them
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile -m "not slow"

test-slow: $(VENV)/.test  ## the proofs that take minutes
	$(BIN)/python -m pytest -n $(WORKERS) -m slow

fuzz: $(VENV)/.test  ## 20,000 damaged inputs for each reader of files
	JAXCNN_FUZZ=20000 $(BIN)/python -m pytest -n $(WORKERS) tests/data/test_fuzz.py

faults: $(VENV)/.test  ## kill, damage, starve and interrupt real runs for MINUTES; see docs/reliability.md
	$(BIN)/python -m tests.faults --minutes $(MINUTES)

test-parity: $(VENV)/.parity  ## compare with torchvision, timm, Keras and pycocotools, installed for this
	$(BIN)/python -m pytest -n $(WORKERS) -m "not slow" $(PARITY)

docs: $(VENV)/.test  ## write docs/api.md and the outputs of docs/notebook.ipynb anew
	$(BIN)/python docs/make_api.py
	$(BIN)/python docs/run_notebook.py

lint: $(VENV)/.test
	$(BIN)/pip install --quiet -c constraints.txt -e ".[dev]"
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/pyright -p pyright-strict.json

$(VENV)/bin/python:
	$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11) and 'jaxcnn needs Python 3.11 or newer; set PYTHON=python3.12')"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip

$(VENV)/.installed: $(VENV)/bin/python pyproject.toml constraints.txt
	$(BIN)/pip install --quiet -c constraints.txt -e .
	touch $@

$(VENV)/.test: $(VENV)/.installed
	$(BIN)/pip install --quiet -c constraints.txt -e ".[test]"
	touch $@

# --no-deps: torchvision's and timm's own requirements would bring another PyTorch with its CUDA packages.
$(VENV)/.parity: $(VENV)/.test
	$(BIN)/pip install --quiet torch==2.13.0 h5py shapely
	$(BIN)/pip install --quiet --no-deps timm torchvision==0.28.0 pycocotools keras optree namex
	touch $@

clean:
	rm -rf $(VENV) .cache .pytest_cache
