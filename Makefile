# One task runner: `make check` is the whole ritual, `make ci` what the CI does.
UV := uv run --frozen

.PHONY: check lint types imports test wheel bench ci

check: lint types imports test

lint:
	$(UV) ruff format --check src tests benchmarks
	$(UV) ruff check src tests benchmarks

types:
	$(UV) mypy

imports:
	$(UV) lint-imports

test:
	$(UV) pytest

wheel:
	rm -rf dist
	uv build --wheel --quiet

ci:
	bash .ci/run
