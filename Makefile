# The one task runner: `make check` is the whole ritual.

.PHONY: check lint types imports test format wheel demo

check: lint types imports test

lint:
	uv run ruff format --check src tests benchmarks
	uv run ruff check src tests benchmarks

types:
	uv run mypy

imports:
	uv run lint-imports

test:
	uv run pytest

format:
	uv run ruff format src tests benchmarks
	uv run ruff check --fix src tests benchmarks

demo:
	uv run wal2delta demo

wheel:
	rm -rf dist
	uv build --wheel --quiet
