# Each target does its own set-up: Python >= 3.11, make and git are enough.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
WORKERS ?= auto
# of the newest and of the oldest packages: the step, optimizers, metrics, layers, primitives, checkpoints
# (pyenv's names of Pythons that are not chosen do not start, its paths do)
PYTHON_NEWEST ?= $(firstword $(wildcard $(HOME)/.pyenv/versions/3.13*/bin/python) python3.13)
PYTHON_OLDEST ?= $(firstword $(wildcard $(HOME)/.pyenv/versions/3.11*/bin/python) python3.11)
CHOICE = tests/test_imports.py tests/test_api.py tests/test_dependencies.py tests/core/test_program.py \
  tests/core/test_optimizers.py tests/core/test_override.py tests/metrics tests/layers tests/ops/test_boxes.py tests/ops/test_pooling.py \
  tests/runs/test_checkpoint.py tests/runs/test_saving.py
MINUTES ?= 30
PARITY = $(shell grep -rlE "importorskip|torchvision_peer|find_spec" tests --include="test_*.py")

.PHONY: demo test test-slow test-newest test-oldest envs mutants fuzz faults test-parity docs docs-site lint clean

demo: $(VENV)/.installed  ## install, train LeNet-5 on the embedded digits, say how well and where
	$(BIN)/python launch.py train digits_lenet5

test: $(VENV)/.test  ## install what tests need, and pass them
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile -m "not slow"

test-slow: $(VENV)/.test  ## the proofs that take minutes
	$(BIN)/python -m pytest -n $(WORKERS) -m slow

test-newest: .venv-newest/.test  ## some minutes of tests with the newest Python and the newest packages; skipped, and said, without that Python
	@! test -x .venv-newest/bin/python || .venv-newest/bin/python -m pytest -n $(WORKERS) --dist loadfile -m "not slow" $(CHOICE)

test-oldest: .venv-oldest/.test  ## the same with Python 3.11 and the oldest packages that pyproject.toml allows
	@! test -x .venv-oldest/bin/python || .venv-oldest/bin/python -m pytest -n $(WORKERS) --dist loadfile -m "not slow" $(CHOICE)

envs: .venv-newest/.test .venv-oldest/.test  ## what the two above need, which may be made beside other work

.venv-newest/.test: pyproject.toml
	@mkdir -p .venv-newest; if ! $(PYTHON_NEWEST) -c "" 2>/dev/null; then \
	  echo "skipped: $(PYTHON_NEWEST) does not start here; set PYTHON_NEWEST"; exit 0; fi; \
	set -e; $(PYTHON_NEWEST) -m venv .venv-newest; \
	.venv-newest/bin/pip install --quiet --upgrade --upgrade-strategy eager -e ".[test]"; \
	.venv-newest/bin/pip list | grep -iE "^(jax|flax|optax|numpy|scipy) "; touch $@

.venv-oldest/.test: pyproject.toml tests/oldest.py
	@mkdir -p .venv-oldest; if ! $(PYTHON_OLDEST) -c "import sys; sys.exit(sys.version_info[:2] != (3, 11))" 2>/dev/null; then \
	  echo "skipped: $(PYTHON_OLDEST) is no Python 3.11 that starts here; set PYTHON_OLDEST"; exit 0; fi; \
	set -e; $(PYTHON_OLDEST) -m venv .venv-oldest; \
	.venv-oldest/bin/python tests/oldest.py > .venv-oldest/constraints.txt; \
	.venv-oldest/bin/pip install --quiet -c .venv-oldest/constraints.txt -e ".[test]"; \
	.venv-oldest/bin/pip list | grep -iE "^(jax|flax|optax|numpy|scipy) "; touch $@

mutants: $(VENV)/.test  ## put small faults into a copy, one at a time: do the nearest tests see them? (an hour and more)
	$(BIN)/python -m tests.mutants --sample 5 --out .cache/mutants.json

fuzz: $(VENV)/.test  ## 20,000 damaged inputs for each reader
	JAXCNN_FUZZ=20000 $(BIN)/python -m pytest -n $(WORKERS) -rP tests/data/test_fuzz.py tests/hostile/test_fuzz.py

faults: $(VENV)/.test  ## kill, damage, starve and interrupt real runs for MINUTES; see docs/reliability.md
	$(BIN)/python -m tests.faults --minutes $(MINUTES)

test-parity: $(VENV)/.parity  ## compare with torchvision, timm, captum, Keras, pycocotools, ONNX Runtime, LiteRT, the trackers, submitit, Ray, an S3 service, WebDataset and Hugging Face's datasets, installed for this; build the site
	$(BIN)/python -m pytest -n $(WORKERS) -m "not slow" $(PARITY)

docs: $(VENV)/.test  ## write docs/api.md, the gallery's pages and the outputs of docs/notebook.ipynb anew
	$(BIN)/python docs/make_api.py
	$(BIN)/python docs/make_gallery.py
	$(BIN)/python docs/run_notebook.py

docs-site: $(VENV)/.installed  ## build the pages and a reference of all docstrings as a site: docs/_build/index.html
	$(BIN)/pip install --quiet -c constraints.txt -e ".[docs]"
	$(BIN)/python -m sphinx -q --fail-on-warning docs docs/_build

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

# --no-deps: the own requirements of torchvision, timm and captum would bring another PyTorch with its CUDA packages.
$(VENV)/.parity: $(VENV)/.test
	$(BIN)/pip install --quiet torch==2.13.0 shapely
	$(BIN)/pip install --quiet --no-deps timm captum torchvision==0.28.0 pycocotools keras optree namex
	$(BIN)/pip install --quiet -c constraints.txt -e ".[docs]"
	$(BIN)/pip install --quiet wandb mlflow trackio tensorboard
	$(BIN)/pip install --quiet huggingface_hub
	$(BIN)/pip install --quiet -e ".[onnx,litert,slurm,ray]"
	$(BIN)/pip install --quiet "moto[server]" s3fs webdataset datasets
	# litert-converter's xdsl wants an older one, with which the trackers' pydantic does not start; both run with this
	$(BIN)/pip install --quiet -c constraints.txt typing_extensions
	touch $@

clean:
	rm -rf $(VENV) .venv-newest .venv-oldest .cache .pytest_cache
