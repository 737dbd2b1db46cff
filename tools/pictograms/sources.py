"""Pinned npm packages: fetching, checking and reading them."""

from __future__ import annotations

import hashlib
import json
import subprocess
import tarfile
import tomllib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

PINS = Path(__file__).with_name("sources.toml")


@dataclass(frozen=True)
class Package:
    """One pinned npm package, as a tarball in ``cache``."""

    name: str
    version: str
    licence: str
    role: str
    sha256: str
    cache: Path

    @property
    def style(self) -> str:
        """The last part of the name: what an artwork set is called in tasks."""
        return self.name.rpartition("/")[2]

    @property
    def tarball(self) -> Path:
        """Where ``npm pack`` puts the package."""
        return self.cache / f"{self.name.lstrip('@').replace('/', '-')}-{self.version}.tgz"

    def fetch(self) -> None:
        """Pack the package from the registry npm is configured with, unless it is here; check its bytes and licence."""
        if not self.tarball.exists():
            self.cache.mkdir(parents=True, exist_ok=True)
            spec = f"{self.name}@{self.version}"
            command = ["npm", "pack", "--silent", "--pack-destination", str(self.cache.resolve()), spec]
            subprocess.run(command, check=True, capture_output=True, cwd=self.cache)
        found = hashlib.sha256(self.tarball.read_bytes()).hexdigest()
        if found != self.sha256:
            raise SystemExit(f"{self.tarball}: sha256 is {found}, sources.toml pins {self.sha256}; delete the file")
        self._check_licence()

    def _check_licence(self) -> None:
        declared = {self.json("package.json")["license"]}
        if self.has("info.json"):
            declared.add(self.json("info.json")["license"]["spdx"])
        if declared != {self.licence}:
            raise SystemExit(f"{self.name}: sources.toml says {self.licence}, the package declares {sorted(declared)}")

    @cached_property
    def _files(self) -> dict[str, bytes]:
        # Only the JSON files: one of the packages carries 25 MB of images that nobody reads here.
        files = {}
        with tarfile.open(self.tarball) as tar:
            for member in tar:
                stream = tar.extractfile(member) if member.name.endswith(".json") else None
                if stream is not None:
                    files[member.name.removeprefix("package/")] = stream.read()
        return files

    def has(self, path: str) -> bool:
        """Whether the package has this JSON file."""
        return path in self._files

    def json(self, path: str) -> Any:
        """The content of one JSON file of the package."""
        return json.loads(self._files[path])


def packages(cache: Path, pins: Path = PINS) -> list[Package]:
    """The packages of sources.toml, or of another file of pins, in its order."""
    with pins.open("rb") as file:
        return [Package(cache=cache, **entry) for entry in tomllib.load(file)["package"]]
