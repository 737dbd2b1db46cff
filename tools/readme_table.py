"""README's table of results, made from the sweeps that are committed in results/pictograms, never typed.

    python tools/readme_table.py            print it
    python tools/readme_table.py --write    put it between its marks in README.md

A test holds README to what this prints.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from rmadapter.errors import UserError
from rmadapter.files import write_text
from rmadapter.measures import overview, overview_in_words
from rmadapter.store import Result, Store
from rmadapter.tables import Grid

ROOT = Path(__file__).resolve().parents[1]
RESULTS = "results/pictograms"
BEGIN, END = "<!-- results, by make readme -->", "<!-- end of results -->"


def block(folder: Path) -> str:
    """What stands between the marks. Raises DataError for a folder that holds no sweep."""
    if not folder.is_dir():
        return f"No sweep is committed in `{RESULTS}/` yet. Once there is one, `make readme` puts its table here."
    store = Store(folder)
    grids = [Grid.read(plan, store) for plan in store.plans()]
    table = str(overview(grids)).partition("\n\n")[2]
    about = f"{provenance(grids)} Made by `make readme` from `{RESULTS}/`."
    return "\n\n".join([table, overview_in_words(grids), about, *missing(grids)])


def provenance(grids: Sequence[Grid]) -> str:
    """How many runs, over what, and what computed them."""
    found = [result for grid in grids for result in grid.results.values() if result is not None and result.versions]
    seeds = _each(str(seed) for grid in grids for seed in grid.distinct("seed"))
    backbones = _each(str(run.recipe["backbone"]) for grid in grids for run in grid.plan.runs)
    packages = _each(f"rmadapter {r.versions.get('rmadapter')}, torch {r.versions.get('torch')}" for r in found)
    machines = _each(_machine(result) for result in found)
    commits = _each(result.commit or "not from a checkout" for result in found)
    runs = {run.id for grid in grids for run in grid.plan.runs}  # some are scored by two protocols
    return f"{len(runs)} runs of {backbones}, seeds {seeds}; {packages}; {machines}; commit {commits}."


def _machine(result: Result) -> str:
    about = result.machine
    return f"{about.get('system')} {about.get('machine')}, {about.get('device')}, threads a run: {about.get('threads')}"


def _each(values: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(values))


def missing(grids: Sequence[Grid]) -> list[str]:
    """What is not there, in words."""
    lacking = [f"{g.plan.protocol} {len(g.open)} of {len(g.plan.runs)}" for g in grids if g.open]
    return [f"–: needs a run that is missing or failed ({'; '.join(lacking)})."] if lacking else []


def put(page: str, text: str, begin: str = BEGIN, end: str = END) -> str:
    """A page with this between its marks. Raises SystemExit where it has no marks."""
    before, mark, rest = page.partition(begin)
    _, stop, after = rest.partition(end)
    if not mark or not stop:
        sys.exit(f"the page has no place for the table: it needs the lines {begin} and {end}")
    return f"{before}{begin}\n\n{text}\n\n{end}{after}"


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--write", action="store_true", help="into README.md")
    try:
        text = block(ROOT / RESULTS)
    except UserError as error:
        sys.exit(f"error: {error}")
    if parser.parse_args().write:
        file = ROOT / "README.md"
        write_text(file, put(file.read_text(encoding="utf-8"), text))
    else:
        print(text)


if __name__ == "__main__":
    main()
