# Every target sets up .venv by itself: plain venv and pip with the tested versions.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/installed

.PHONY: study test lint format clean
.DELETE_ON_ERROR:

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

## study: the quickstart, from data to summary (about three minutes after installation)
study: $(STAMP)
	$(BIN)/tips-dist data generate -o data/quickstart
	$(BIN)/tips-dist run studies/quickstart.yaml --truth data/quickstart.truth3d.h5

## test: the test suite
test: $(STAMP)
	$(BIN)/python -m pytest

## lint: style, types, and the walls between floors
lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

## format: rewrite the code in the project's style
format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf .venv build *.egg-info
