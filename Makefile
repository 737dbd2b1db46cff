.PHONY: check test golden bench readme

check:  ## format, lint, types
	ruff format --check .
	ruff check .
	mypy

test:  ## all tests, the import rules among them
	pytest

golden:  ## our numbers against the published implementations'
	python tests/golden/run.py

readme:  ## tables of README and of docs/experiments/transfer.md, from results/
	python tools/readme_table.py --write
	python tools/transfer_page.py --write

bench:  ## speed and memory, in a short form
	for name in step parts rate whole_run predict; do python benchmarks/$$name.py --short || exit 1; done
	python benchmarks/scenes.py
