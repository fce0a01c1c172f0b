# make demo: install and run the main job. make test: install and run the tests.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# By stealing, a file stays with one worker, and what its tests share is made once.
PYTEST := $(BIN)/python -m pytest -n 2 --dist worksteal

.PHONY: demo test lint slow clean

demo: $(VENV)/installed
	$(BIN)/keras-robust demo --report report

# Everything runs under both Kerases, but for what says nothing about Keras; compress, which needs
# tf_keras, under that one.
test: $(VENV)/installed-test lint
	TF_USE_LEGACY_KERAS=0 $(PYTEST) -m "not slow"
	TF_USE_LEGACY_KERAS=1 $(PYTEST) -m "not slow and not once"

slow: $(VENV)/installed-test
	TF_USE_LEGACY_KERAS=0 $(BIN)/python -m pytest -m slow
	TF_USE_LEGACY_KERAS=1 $(BIN)/python -m pytest -m slow

lint: $(VENV)/installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# The pip that Python 3.10 brings searches many minutes for versions that go together.
$(BIN)/python:
	$(PYTHON) -m venv --upgrade-deps $(VENV)

$(VENV)/installed: setup.cfg pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable ".[compress]"
	touch $@

$(VENV)/installed-test: setup.cfg pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable ".[test]"
	touch $@ $(VENV)/installed

clean:
	rm -rf $(VENV) build dist *.egg-info
