"""Writes the word list of the package: names of emoji, which auxiliary classes are called by.

    python tools/pictograms/words.py --cache build/pictograms

Every concept of ``concepts.py`` but flags and hair: CLDR short names in lower case, each once, by alphabet. The
package is the one that ``sources.toml`` pins.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from concepts import ConceptIndex
from sources import packages

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = ROOT / "src" / "rmadapter" / "data" / "words" / "cldr.txt"
HEADER = """\
# Names of emoji without flags, hair and skin tones: CLDR short names, lower case. Written by tools/pictograms/words.py.
# Copyright Unicode, Inc., Unicode-3.0 licence (../pictograms/licenses/cldr-Unicode-3.0.txt), as packaged by
# emojibase-data 17.0.0, copyright (c) 2017-2019 Miles Johnson, MIT licence
# (../pictograms/licenses/emojibase-data-MIT.txt).
"""


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, default=ROOT / "build" / "pictograms", help="where tarballs are kept")
    given = parser.parse_args()
    names = {package.name: package for package in packages(given.cache) if package.role == "names"}
    for package in names.values():
        package.fetch()
    index = ConceptIndex(names["emojibase-data"], names["emoji-datasource"], [])
    words = sorted({concept.name for concept in index.concepts.values() if concept.group not in ("flags", "component")})
    SHIPPED.write_text(HEADER + "".join(f"{word}\n" for word in words), encoding="utf-8")
    print(f"{SHIPPED}: {len(words)} names")


if __name__ == "__main__":
    main()
