"""Builds the artwork of the Pictograms tasks: sprites, concepts.json and ATTRIBUTION.md.

    python tools/pictograms/build.py            fetch the pinned packages, render, write into the package
    python tools/pictograms/build.py --check    build beside and compare with what is shipped, byte for byte

Needs npm, pillow, numpy and resvg-py. A concept becomes a class when fluent-emoji-flat and one more evaluation style
draw it, three or more pre-training styles draw it (novel classes must be known to a model, as real CLIP knows its
own), its name is its own and its picture can tell it from the others.
"""

from __future__ import annotations

import argparse
import filecmp
import json
import tempfile
from pathlib import Path
from typing import Any

from concepts import THEMES, WIDE, Concept, ConceptIndex, distinct, is_ambiguous, theme_of
from render import sprites, webp, write_zip
from sources import Package, packages

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = ROOT / "src" / "rmadapter" / "data" / "pictograms"
REQUIRED_STYLE = "fluent-emoji-flat"
EVALUATION_STYLES, PRETRAINING_STYLES = 2, 3
"""In how many styles of each role a concept must be drawn to become a class."""

CLASSES = range(20, 131)
"""Classes that a theme may have; the wide task may have more."""


def classes(index: ConceptIndex, evaluation: list[set[str]], pretraining: list[set[str]]) -> list[Concept]:
    """The concepts that become classes, given the hex ids that each style of each role draws."""
    fit = [
        concept
        for hex_id, concept in index.concepts.items()
        if sum(hex_id in style for style in evaluation) >= EVALUATION_STYLES
        and sum(hex_id in style for style in pretraining) >= PRETRAINING_STYLES
        and theme_of(concept) is not None
        and not is_ambiguous(concept)
    ]
    return distinct(fit)


def table(chosen: list[Concept], drawn: dict[str, set[str]]) -> list[dict[str, Any]]:
    """concepts.json: one row a concept, by theme and then by hex id."""
    rows = [
        {
            "hex": concept.hex.lower(),
            "name": concept.name,
            "group": concept.group,
            "subgroup": concept.subgroup,
            "theme": theme_of(concept),
            "styles": [style for style, ids in drawn.items() if concept.hex in ids],
        }
        for concept in chosen
    ]
    for theme in THEMES:
        count = sum(row["theme"] == theme for row in rows)
        if count not in CLASSES:
            raise SystemExit(f"theme {theme} has {count} classes, not {CLASSES.start} to {CLASSES.stop - 1}")
    print({theme: sum(row["theme"] == theme for row in rows) for theme in (*THEMES, WIDE)})
    return sorted(rows, key=lambda row: (row["theme"], row["hex"]))


def attribution(sets: list[Package], counts: dict[str, int]) -> str:
    """ATTRIBUTION.md from the packages' own metadata."""
    lines = [
        "# Artwork of the Pictograms tasks",
        "",
        "Written by `tools/pictograms/build.py`. Icons were rendered to 64 x 64 pixels (a change to the originals);",
        "skin tones and concepts that no task uses were left out. Licence texts are in `licenses/`.",
        "",
        "| style | set | author | source | licence | package | sprites |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for package in sets:
        info = package.json("info.json")
        author, licence = info["author"], info["license"]
        cells = [package.style, info["name"], author["name"], f"<{author['url']}>"]
        cells += [f"[{licence['spdx']}]({licence['url']})", f"{package.name} {package.version}"]
        lines.append("| " + " | ".join([*cells, str(counts[package.style])]) + " |")
    return "\n".join([*lines, "", *NOTES, ""])


NOTES = [
    "Fluent Emoji: Copyright (c) Microsoft Corporation, MIT licence (`licenses/fluent-emoji-MIT.txt`).",
    "",
    "Firefox OS Emoji (fxemoji): Copyright 2015, Mozilla Foundation. The package declares Apache-2.0",
    "(`licenses/fxemoji-Apache-2.0.txt`); the project's own LICENSE.md puts its code under Apache-2.0 and its visual",
    "design under [CC BY 4.0](https://creativecommons.org/licenses/by/4.0/). Credit, link and the note on changes",
    "above meet both.",
    "",
    "Names, groups and subgroups are CLDR short names and categories (Copyright Unicode, Inc., Unicode-3.0 licence,",
    "`licenses/cldr-Unicode-3.0.txt`) as packaged by emojibase-data 17.0.0 (Copyright (c) 2017-2019 Miles Johnson, MIT",
    "licence, `licenses/emojibase-data-MIT.txt`).",
]


def build(cache: Path, target: Path) -> None:
    """Fetch, choose, render and write into ``target``."""
    pinned = packages(cache)
    for package in pinned:
        package.fetch()
    names = {package.name: package for package in pinned if package.role == "names"}
    sets = [package for package in pinned if package.role != "names"]
    index = ConceptIndex(names["emojibase-data"], names["emoji-datasource"], sets)
    icons = {package.style: index.icons(package) for package in sets}
    shipped = [package for package in sets if package.role == "evaluation"]
    art = {package.style: sprites(package, icons[package.style]) for package in shipped}
    known = [set(icons[package.style]) for package in sets if package.role == "pretraining"]
    required = set(art[REQUIRED_STYLE])
    chosen = classes(index, [required & set(style) for style in art.values()], known)
    used = {concept.hex for concept in chosen}
    drawn = {style: used & set(pictures) for style, pictures in art.items()}
    for style, ids in drawn.items():
        files = ((f"{hex_id.lower()}.webp", webp(art[style][hex_id])) for hex_id in ids)
        write_zip(target / "sprites" / f"{style}.zip", files)
    rows = [json.dumps(row, ensure_ascii=False) for row in table(chosen, drawn)]
    (target / "concepts.json").write_text("[\n" + ",\n".join(rows) + "\n]\n", encoding="utf-8")
    counts = {style: len(ids) for style, ids in drawn.items()}
    (target / "ATTRIBUTION.md").write_text(attribution(shipped, counts), encoding="utf-8")


def check(cache: Path) -> None:
    """Build into a temporary folder and stop with the names of the files that differ from the shipped ones."""
    with tempfile.TemporaryDirectory() as folder:
        build(cache, Path(folder))
        files = [path.relative_to(folder) for path in Path(folder).rglob("*") if path.is_file()]
        _, differ, missing = filecmp.cmpfiles(folder, SHIPPED, [str(path) for path in files], shallow=False)
    if differ or missing:
        raise SystemExit(f"not what is shipped: {', '.join(sorted(differ + missing))}")
    print(f"{len(files)} files are as shipped")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, default=ROOT / "build" / "pictograms", help="where tarballs are kept")
    parser.add_argument("--check", action="store_true", help="compare with what is shipped and write nothing")
    arguments = parser.parse_args()
    if arguments.check:
        check(arguments.cache)
    else:
        build(arguments.cache, SHIPPED)


if __name__ == "__main__":
    main()
