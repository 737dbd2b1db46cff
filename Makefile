.PHONY: check test golden bench readme

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

bench:  ## speed and memory, in a short form
	for name in step parts rate whole_run predict; do python benchmarks/$$name.py --short || exit 1; done
	python benchmarks/scenes.py
