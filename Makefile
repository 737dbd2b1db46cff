.PHONY: check test golden readme

check:  ## format, lint, types
	ruff format --check .
	ruff check .
	mypy

test:  ## all tests, the import rules among them
	pytest

golden:  ## our numbers against the published implementations'
	python tests/golden/run.py

readme:  ## README's table of results, from results/pictograms
	python tools/readme_table.py --write
