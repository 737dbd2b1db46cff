"""Concepts (CLDR emoji without skin tones), the mapping of icon names onto them, and the ten themes."""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from sources import Package

SHORTCODES = ("cldr", "emojibase", "emojibase-legacy", "iamcal", "github", "joypixels")
"""Shortcode lists of emojibase-data, the most literal first: the first list that knows a name decides."""

GENDER_SIGNS = {"2640", "2642"}
MAN_WOMAN = ("1F468-200D", "1F469-200D")
FACING_RIGHT = "-200D-27A1"
LOOK_ALIKE = {
    "1F9D1": "person, drawn as man or woman",
    "1F9D2": "child, drawn as boy or girl",
    "1F9D3": "older person, drawn as old man or old woman",
    "1F34F": "green apple, a red apple where the artwork has one colour",
    "1F4D8": "blue book, a green book where the artwork has one colour",
    "1F4D9": "orange book, a green book where the artwork has one colour",
    "1F4C0": "dvd, an optical disk where the artwork has one colour",
    "1F387": "sparkler, drawn as fireworks",
    "1F3E3": "japanese post office, drawn as post office",
    "1F3D4": "snow-capped mountain, drawn as mountain",
    "26F1": "umbrella on ground, drawn as beach with umbrella",
    "26C4": "snowman without snow, drawn as snowman",
    "1F324": "sun behind small cloud, drawn as sun behind cloud",
    "1F325": "sun behind large cloud, drawn as sun behind cloud",
    "1F4C6": "tear-off calendar, drawn as calendar",
    "23F3": "hourglass not done, drawn as hourglass done",
    "1F5E8": "left speech bubble, drawn as speech balloon",
    "1F509": "speaker medium volume, drawn as speaker low volume",
}

CORRECTIONS: dict[tuple[str, str], str | None] = {
    ("fxemoji", "cat"): "1F431",
    ("fxemoji", "catside"): "1F408",
    ("fxemoji", "dog"): "1F436",
    ("fxemoji", "dogside"): "1F415",
    ("fxemoji", "mouse"): "1F42D",
    ("fxemoji", "mouseside"): "1F401",
    ("fxemoji", "pig"): "1F437",
    ("fxemoji", "pigside"): "1F416",
    ("fxemoji", "tiger"): "1F42F",
    ("fxemoji", "tigerside"): "1F405",
    ("fxemoji", "bow"): "1F380",
    ("fxemoji", "bowing"): "1F647",
    ("fxemoji", "pout"): "1F64E",
    ("fxemoji", "pouting"): "1F621",
    ("fxemoji", "construction"): "1F3D7",
    ("fxemoji", "keyboard"): None,
    ("fxemoji", "wiredkeyboard"): "2328",
    ("fxemoji", "umbrella"): "1F302",
    ("fxemoji", "beachumbrella"): "1F3D6",
    ("fxemoji", "icecream"): "1F368",
    ("fxemoji", "softicecream"): "1F366",
    ("fxemoji", "email"): "1F4E7",
    ("fxemoji", "envelope"): "2709",
    ("fxemoji", "linkedpaperclips"): None,
    ("fxemoji", "tramcar"): None,
    ("fxemoji", "up"): None,
    ("fxemoji", "squaredup"): "1F199",
    ("fxemoji", "down"): None,
    ("fxemoji", "wave"): "1F30A",
    ("fxemoji", "waving"): "1F44B",
    ("fxemoji", "sparkle"): None,
}
"""Icons whose name says another concept than their picture, or that cannot be drawn (None), seen by looking."""


@dataclass(frozen=True)
class Concept:
    """One emoji: hex id (code points joined by hyphens, no variation selector), name, CLDR group and subgroup."""

    hex: str
    name: str
    group: str
    subgroup: str


OFFICE = {
    *("computer", "phone", "light-video", "sound", "music", "musical-instrument"),
    *("office", "mail", "book-paper", "writing", "money"),
}
HOME = {"tool", "science", "medical", "household", "lock", "other-object", "clothing"}

THEMES: dict[str, Callable[[Concept], bool]] = {
    "animals": lambda c: c.subgroup.startswith("animal-"),
    "plants": lambda c: c.subgroup.startswith("plant-") or c.subgroup in ("food-fruit", "food-vegetable"),
    "food": lambda c: c.subgroup in ("food-prepared", "food-asian", "food-sweet", "drink", "dishware"),
    "faces": lambda c: c.group == "smileys-emotion" and c.subgroup not in ("heart", "emotion"),
    "people": lambda c: c.subgroup.startswith("person"),
    "transport": lambda c: c.subgroup in ("transport-ground", "transport-air", "transport-water"),
    "places": lambda c: c.subgroup.startswith("place-") or c.subgroup in ("hotel", "sky-weather"),
    "office": lambda c: c.subgroup in OFFICE,
    "home": lambda c: c.subgroup in HOME,
    "leisure": lambda c: c.group == "activities",
}


WIDE = "wide"
"""The task of all kinds of things, the source of transfer: a quarter of every theme, and what no theme holds."""

WIDE_GROUPS = {"smileys-emotion", "people-body", "symbols", "travel-places", "flags"}
NOT_WIDE = {
    *("geometric", "keycap", "country-flag", "subdivision-flag"),  # one drawing in many colours, or letters to read
    *("family", "person-symbol", "regional-indicator"),
}
COLOURED = re.compile(r"^(red|orange|yellow|green|blue|light blue|purple|brown|black|grey|white|pink) ")
"""Names that differ by colour alone, which artwork of one colour does not show."""


def theme_of(concept: Concept) -> str | None:
    """The task that a concept belongs to: a theme, or the wide one; no two themes share a subgroup."""
    theme = next((theme for theme, holds in THEMES.items() if holds(concept)), None)
    if theme is None:
        apart = concept.subgroup in NOT_WIDE or COLOURED.match(concept.name) or concept.group not in WIDE_GROUPS
        return None if apart else WIDE
    quarter = hashlib.sha256(f"wide {concept.hex}".encode()).digest()[0] % 4 == 0
    return WIDE if quarter else theme


def clean(label: str) -> str:
    """A CLDR label as it stands in a prompt: lower case, plain apostrophe, no quotes and no colon."""
    label = label.lower().replace("’", "'").replace("“", "").replace("”", "")
    return " ".join(label.replace(":", " ").split())


def is_ambiguous(concept: Concept) -> bool:
    """Whether nobody could tell the concept from another by its picture: variants of sex and facing, clock faces.

    The man and woman variants go and the neutral one stays.
    """
    parts = concept.hex.split("-")
    clock_face = len(parts) == 1 and 0x1F550 <= int(parts[0], 16) <= 0x1F567
    sexed = bool(GENDER_SIGNS & set(parts[1:])) or concept.hex.startswith(MAN_WOMAN)
    return clock_face or sexed or FACING_RIGHT in concept.hex or concept.hex in LOOK_ALIKE


def distinct(concepts: Iterable[Concept]) -> list[Concept]:
    """The concepts whose name no other one has; a name that two share says nothing, so both go."""
    by_name: dict[str, list[Concept]] = defaultdict(list)
    for concept in concepts:
        by_name[concept.name].append(concept)
    return [same[0] for same in by_name.values() if len(same) == 1]


def strip_selector(code_points: str) -> str:
    """A hex id without the variation selector FE0F, which sets treat differently."""
    return "-".join(part for part in code_points.upper().split("-") if part != "FE0F")


def slug(text: str) -> str:
    """Lower case words joined by hyphens, as icon sets write names."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower().replace("’", "").replace("'", "")).strip("-")


def squash(text: str) -> str:
    """Letters and digits only: some sets write names in one word."""
    return re.sub(r"[^a-z0-9]", "", text.lower())


class ConceptIndex:
    """All concepts, and every name by which some set or shortcode list calls them."""

    def __init__(self, emojibase: Package, datasource: Package, sets: Iterable[Package]) -> None:
        groups = emojibase.json("meta/groups.json")
        self.concepts: dict[str, Concept] = {}
        self.toned: set[str] = set()
        for entry in emojibase.json("en/data.json"):
            if "group" not in entry:  # regional indicators and skin tones themselves
                continue
            hex_id = strip_selector(entry["hexcode"])
            group, subgroup = groups["groups"][str(entry["group"])], groups["subgroups"][str(entry["subgroup"])]
            self.concepts[hex_id] = Concept(hex_id, clean(entry["label"]), group, subgroup)
            self.toned.update(strip_selector(skin["hexcode"]) for skin in entry.get("skins", []))
        self._names: dict[str, str] = {}
        self._add_names(emojibase, datasource, sets)
        self._squashed: dict[str, str] = {}
        for name, hex_id in self._names.items():
            self._squashed.setdefault(squash(name), hex_id)

    def _add(self, name: str, hex_id: str) -> None:
        key, hex_id = slug(name), strip_selector(hex_id)
        if key and hex_id in self.concepts and hex_id not in self.toned:
            self._names.setdefault(key, hex_id)

    def _add_names(self, emojibase: Package, datasource: Package, sets: Iterable[Package]) -> None:
        for hex_id, concept in self.concepts.items():
            self._add(concept.name, hex_id)
        for package in sets:
            for hex_id, name in read_chars(package).items():
                self._add(name, hex_id)
        for entry in datasource.json("emoji.json"):
            for name in [entry.get("name") or "", *entry["short_names"]]:
                self._add(name, entry["unified"])
        for listing in SHORTCODES:
            for hex_id, names in emojibase.json(f"en/shortcodes/{listing}.json").items():
                for name in [names] if isinstance(names, str) else names:
                    self._add(name, hex_id)

    def resolve(self, name: str, style: str) -> str | None:
        """The concept that an icon's name means, or None."""
        for candidate in map(slug, spellings(name, style)):
            found = self._names.get(candidate) or self._squashed.get(squash(candidate))
            if found:
                return found
        return None

    def icons(self, package: Package) -> dict[str, str]:
        """Concept hex id -> icon name in the set, skin tones dropped; the set's first icon of a concept counts."""
        by_icon: dict[str, list[str]] = defaultdict(list)
        for hex_id, name in read_chars(package).items():
            by_icon[name].append(strip_selector(hex_id))
        chosen: dict[str, str] = {}
        for name, icon in package.json("icons.json")["icons"].items():
            given = by_icon[name]
            if icon.get("hidden") or any(hex_id in self.toned for hex_id in given):
                continue
            known = [hex_id for hex_id in given if hex_id in self.concepts]
            found = known[0] if known else self.resolve(name, package.style)
            found = CORRECTIONS.get((package.style, name), found)
            if found is not None:
                chosen.setdefault(found, name)
        return chosen


def spellings(name: str, style: str) -> list[str]:
    """The ways in which sets vary a name: numbered copies, 'black' left out, 'face' added or left out, 'oclock'."""
    found = [name, re.sub(r"^flag-for-", "flag-", name)]
    if style == "streamline-emojis":
        found.append(re.sub(r"-\d$", "", name))
    if style == "fxemoji":
        found.append("black" + name)
    return [*found, f"{name}-face", name.removesuffix("-face"), re.sub(r"-?oclock", " oclock", name)]


def read_chars(package: Package) -> dict[str, Any]:
    """Code points -> icon name as the set states them; empty where it states none."""
    chars: dict[str, Any] = package.json("chars.json") if package.has("chars.json") else {}
    return chars
