"""What protocols train on and score."""

from __future__ import annotations

import pytest

from rmadapter.data import task_names
from rmadapter.errors import SettingError
from rmadapter.protocols import PROTOCOLS, legs

THEMES = [name for name in task_names() if name != "pictograms/wide"]


def test_base_to_novel_scores_both_halves_of_every_task() -> None:
    found = legs("base-to-novel", ["pictograms"], None, [])
    assert [leg.data for leg in found] == THEMES and len(THEMES) == 10
    for leg in found:
        assert (leg.classes, leg.shots) == ("base", 16)
        assert [(e.role, e.data, e.classes) for e in leg.evaluations] == [
            ("base", leg.data, "base"),
            ("novel", leg.data, "novel"),
        ]


def test_cross_dataset_trains_once_on_all_classes_of_the_source() -> None:
    (leg,) = legs("cross-dataset", ["pictograms"], None, [])
    assert (leg.data, leg.classes, leg.shots) == ("pictograms/wide", "all", 16)
    assert [e.role for e in leg.evaluations] == ["source"] + ["target"] * 10
    assert [e.data for e in leg.evaluations] == ["pictograms/wide", *THEMES]
    (leg,) = legs("cross-dataset", ["a", "b"], "c", [4])
    assert (leg.data, leg.shots) == ("c", 4) and [e.data for e in leg.evaluations] == ["c", "a", "b"]


def test_domain_generalization_tests_on_other_domains_of_the_source() -> None:
    (leg,) = legs("domain-generalization", ["pictograms"], None, [])
    assert leg.data == "pictograms/wide"
    assert {e.data for e in leg.evaluations[1:]} == {
        f"pictograms/wide/{name}" for name in ("fresh", "mono", "hard", "fxemoji")
    }


def test_few_shot_is_a_curve() -> None:
    found = legs("few-shot", ["a", "b"], None, [])
    assert [(leg.data, leg.shots) for leg in found] == [(d, s) for d in "ab" for s in (1, 2, 4, 8, 16)]
    assert {leg.classes for leg in found} == {"all"}
    assert [leg.shots for leg in legs("few-shot", ["a"], None, [3])] == [3]


def test_mistakes() -> None:
    with pytest.raises(SettingError, match="did you mean 'few-shot'"):
        legs("fewshot", ["pictograms"], None, [])
    with pytest.raises(SettingError, match="has no source"):
        legs("few-shot", ["a"], "b", [])
    with pytest.raises(SettingError, match="nothing to test on"):
        legs("cross-dataset", ["a"], None, [])
    assert set(PROTOCOLS) == {"base-to-novel", "cross-dataset", "domain-generalization", "transfer", "few-shot"}
