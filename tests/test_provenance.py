"""What a number was computed with."""

from __future__ import annotations

from importlib import metadata

import pytest

from rmadapter import provenance


def test_optional_packages_are_recorded_where_they_are_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provenance, "OPTIONAL", ("pytest", "no-such-package"))
    found = provenance.versions()
    assert found["pytest"] == metadata.version("pytest") and "no-such-package" not in found
    assert set(provenance.PACKAGES) < found.keys()
