# The one task runner: `make check` is the whole ritual.

.PHONY: check lint types imports test model simulate mutate lowest format wheel demo site

check: lint types imports test

lint:
	! git grep -nE '^(<{7}|>{7}) '
	uv run ruff format --check src tests benchmarks container monitoring
	uv run ruff check src tests benchmarks container monitoring

types:
	uv run mypy

imports:
	uv run lint-imports

test:
	uv run pytest -n 3 --dist loadfile

# Every reachable state of the models, and what goes wrong without each guard.
model:
	uv run python -m tests.model

# Random runs with faults, `make simulate SEEDS="--seed 17"` for the story of one.
SEEDS ?=
simulate:
	uv run python -m tests.simulation $(SEEDS)

# Mutants of the rules, in functions that have changed since they were last measured.
mutate:
	nice -n 19 uv run python -m tests.mutation

# The lowest versions that pyproject.toml admits, in an environment of their own. Which tests:
# `make lowest TESTS="tests/unit tests/contracts"`.
TESTS ?= tests/unit tests/contracts tests/integration/cli/test_commands.py
lowest:
	uv venv --quiet --clear --python 3.11 build/lowest
	uv pip install --quiet --python build/lowest --resolution lowest-direct \
	    -e '.[duckdb,delta,demo]' --group dev
	build/lowest/bin/python -m pytest -q $(TESTS)

format:
	uv run ruff format src tests benchmarks container monitoring
	uv run ruff check --fix src tests benchmarks container monitoring

demo:
	uv run pgbronze demo

wheel:
	rm -rf dist
	uv build --wheel --quiet

# The documentation site, into build/site. A warning fails it.
site:
	uv run --group docs python docs/build_site.py
