"""Renders the artwork that PictoCLIP is trained on into a cache folder.

    python tools/pictograms/pretraining.py            fetch the pinned packages, render, write build/pictoclip/artwork

Emoji styles with the role ``pretraining`` in sources.toml, and the wide vocabulary of vocabulary.toml. Evaluation
styles are never read. Writes ``sprites.npy`` (n, 64, 64, 4) uint8 RGBA, ``index.json`` (names, and the style and name
of each sprite) and ``ATTRIBUTION.md``. Needs npm, pillow, numpy and resvg-py.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
from collections import Counter, defaultdict
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from concepts import SHORTCODES, ConceptIndex, is_ambiguous, strip_selector, theme_of
from numpy.typing import NDArray
from render import SIZE, sprite
from sources import Package, packages
from vocabulary import AMBIGUOUS, drawings, flag

ROOT = Path(__file__).resolve().parents[2]
VOCABULARY = Path(__file__).with_name("vocabulary.toml")
FLAGS = "circle-flags"
CHUNK = 500
"""Icons that one task of the pool renders."""


@dataclass
class Name:
    """One caption: the emoji it names, if it is one, where that belongs, and what else it is called."""

    group: str = ""
    """Theme, or CLDR group where the emoji has no theme; empty for the wide vocabulary."""
    variant: bool = False
    """An emoji that differs from another in sex, facing or the hour only."""
    aliases: list[str] = field(default_factory=list)


@dataclass
class Plan:
    """What is to be drawn: names, and for each icon its package, its name in the set and what it shows."""

    names: dict[str, Name]
    icons: list[tuple[int, str, str]]


def aliases(index: ConceptIndex, emojibase: Package) -> dict[str, list[str]]:
    """Hex id -> other names in words: shortcodes and tags that no other emoji has."""
    said: dict[str, set[str]] = defaultdict(set)
    for listing in SHORTCODES:
        for hex_id, codes in emojibase.json(f"en/shortcodes/{listing}.json").items():
            for code in [codes] if isinstance(codes, str) else codes:
                said[strip_selector(hex_id)].add(" ".join(code.lower().replace("_", " ").split()))
    for entry in emojibase.json("en/data.json"):
        said[strip_selector(entry["hexcode"])].update(tag.lower() for tag in entry.get("tags", []))
    counts = Counter(word for words in said.values() for word in words)
    labels = {concept.name for concept in index.concepts.values()}
    return {
        hex_id: sorted(word for word in words if counts[word] == 1 and len(word) > 2 and word not in labels)
        for hex_id, words in said.items()
    }


def plan(styles: list[Package], wide: list[Package], index: ConceptIndex, emojibase: Package) -> Plan:
    """Every icon to draw, under the name it shows. A name stands once, so a wide set's cat is one more emoji cat."""
    names: dict[str, Name] = {}
    icons: list[tuple[int, str, str]] = []
    others = aliases(index, emojibase)
    for position, package in enumerate(styles):
        for hex_id, icon in index.icons(package).items():
            concept = index.concepts[hex_id]
            group = theme_of(concept) or concept.group
            names.setdefault(concept.name, Name(group, is_ambiguous(concept), others.get(hex_id, [])))
            icons.append((position, icon, concept.name))
    for position, package in enumerate(wide, start=len(styles)):
        shown = flags(package, index) if package.style == FLAGS else drawings(package)
        for said, drawn in shown.items():
            if said in AMBIGUOUS and said in names:
                continue
            names.setdefault(said, Name())
            icons.extend((position, icon, said) for icon in drawn)
    return Plan(names, icons)


def flags(package: Package, index: ConceptIndex) -> dict[str, list[str]]:
    """Name of a flag emoji -> icon, in a set whose icons are called by country codes."""
    codes = [name for name in package.json("icons.json")["icons"] if re.fullmatch("[a-z]{2}", name)]
    return {index.concepts[flag(code)].name: [code] for code in codes if flag(code) in index.concepts}


_SETS: list[Any] = []


def _open(tarballs: list[Package]) -> None:
    _SETS[:] = [package.json("icons.json") for package in tarballs]


def _draw(icons: list[tuple[int, str, str]]) -> list[NDArray[np.uint8] | None]:
    return [sprite(_SETS[position], icon) for position, icon, _ in icons]


def render(chosen: Plan, sets: list[Package], jobs: int) -> tuple[list[int], NDArray[np.uint8]]:
    """The positions of the icons that are not blank, and their sprites."""
    chunks = [chosen.icons[start : start + CHUNK] for start in range(0, len(chosen.icons), CHUNK)]
    kept: list[int] = []
    drawn: list[NDArray[np.uint8]] = []
    with ProcessPoolExecutor(jobs, initializer=_open, initargs=(sets,)) as pool:
        for number, pictures in enumerate(pool.map(_draw, chunks)):
            for offset, picture in enumerate(pictures):
                if picture is not None:
                    kept.append(number * CHUNK + offset)
                    drawn.append(picture)
    return kept, np.stack(drawn).reshape(-1, SIZE, SIZE, 4)


def attribution(sets: list[Package], counts: Counter[str]) -> str:
    """A table of everything that was drawn, from the packages' own metadata."""
    lines = [
        "| set | author | source | licence | package | sprites |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for package in sets:
        info = package.json("info.json")
        author, licence = info["author"], info["license"]
        link = f"[{licence['spdx']}]({licence['url']})" if "url" in licence else licence["spdx"]
        cells = [info["name"], author["name"], f"<{author['url']}>" if "url" in author else "", link]
        cells += [f"{package.name} {package.version}", str(counts[package.style])]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join([*lines, ""])


def build(cache: Path, target: Path, jobs: int) -> None:
    """Fetch, choose, render and write into ``target``."""
    pinned = packages(cache)
    names = {package.name: package for package in pinned if package.role == "names"}
    styles = [package for package in pinned if package.role == "pretraining"]
    wide = packages(cache, VOCABULARY)
    for package in [*names.values(), *styles, *wide]:
        package.fetch()
    emojibase, sets = names["emojibase-data"], [*styles, *wide]
    index = ConceptIndex(emojibase, names["emoji-datasource"], styles)
    chosen = plan(styles, wide, index, emojibase)
    kept, pixels = render(chosen, sets, jobs)
    shown = [(sets[chosen.icons[place][0]].style, chosen.icons[place][2]) for place in kept]
    used = sorted({name for _, name in shown})
    number = {name: position for position, name in enumerate(used)}
    content = {
        "sha256": hashlib.sha256(pixels.tobytes()).hexdigest(),
        "styles": {
            package.style: {"mono": not package.json("info.json")["palette"], "emoji": package in styles}
            for package in sets
        },
        "names": [{"name": name, **vars(chosen.names[name])} for name in used],
        "sprites": [[style, number[name]] for style, name in shown],
    }
    target.mkdir(parents=True, exist_ok=True)
    np.save(target / "sprites.npy", pixels)
    (target / "index.json").write_text(json.dumps(content, ensure_ascii=False) + "\n", encoding="utf-8")
    counts = Counter(style for style, _ in shown)
    (target / "ATTRIBUTION.md").write_text(attribution(sets, counts), encoding="utf-8")
    emoji = sum(bool(entry.group) for name, entry in chosen.names.items() if name in number)
    print(f"{len(shown)} sprites, {len(used)} names, {emoji} of them emoji, sha256 {content['sha256']}")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, default=ROOT / "build" / "pictograms", help="where tarballs are kept")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "pictoclip" / "artwork", help="where to write")
    parser.add_argument("--jobs", type=int, default=2, help="processes that render")
    arguments = parser.parse_args()
    build(arguments.cache, arguments.out, arguments.jobs)


if __name__ == "__main__":
    main()
