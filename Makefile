.PHONY: check test golden

check:  ## format, lint, types
	ruff format --check .
	ruff check .
	mypy

test:  ## all tests, the import rules among them
	pytest

golden:  ## our numbers against the published implementations'
	python tests/golden/run.py
