"""Training: schedule, determinism, resume, what it writes, what it refuses."""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

import rmadapter as ra
from rmadapter import checkpoint, train
from rmadapter.backbones import Backbone
from rmadapter.data import Task
from rmadapter.data.loader import Augment, Augmented, order, training_batches
from rmadapter.errors import DataError, SettingError, TrainingError, UserError
from rmadapter.train import TrainSettings, train_settings
from small import small_pair


def sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


@pytest.mark.parametrize(
    ("epochs", "last"), [(5, 0.345), (2, 1.0), (8, 0.146), (10, 0.095), (20, 0.0245), (50, 3.9e-3), (200, 2.5e-4)]
)
def test_published_schedule(epochs: int, last: float) -> None:
    settings = TrainSettings(epochs=epochs, lr=0.002)
    rates = [settings.rate(epoch, step=7, steps=10) for epoch in range(epochs)]
    assert rates[0] == 1e-5
    assert rates[1:] == [0.002 * (1 + math.cos(math.pi * (e - 1) / epochs)) / 2 for e in range(1, epochs)]
    assert rates[-1] / 0.002 == pytest.approx(last, rel=0.02)


def test_schedule_without_warmup_is_mmas() -> None:
    settings = train_settings("rmadapter", "", {})
    assert settings.warmup_epochs == 0 and settings.optimizer == "sgd"
    rates = [settings.rate(epoch, 0, 1) for epoch in range(5)]
    assert rates == [0.0015 * 0.5 * (1 + math.cos(math.pi * e / 5)) for e in range(5)]


def test_schedule_by_step_falls_to_zero() -> None:
    settings = TrainSettings(epochs=2, warmup_epochs=0, schedule="cosine_by_step", lr=1.0)
    rates = [settings.rate(epoch, step, 50) for epoch in range(2) for step in range(50)]
    assert rates[0] == 1.0 and rates == sorted(rates, reverse=True) and rates[-1] < 1e-3
    assert TrainSettings(schedule="constant", warmup_epochs=0).rate(4, 3, 9) == TrainSettings().lr


def test_order_drops_only_a_last_batch_that_is_small() -> None:
    batches = order(37, 16, seed=1, epoch=0)
    assert [len(batch) for batch in batches] == [16, 16]
    assert len({index for batch in batches for index in batch}) == 32
    assert [len(batch) for batch in order(5, 16, seed=1, epoch=0)] == [5]
    assert [len(batch) for batch in order(32, 16, seed=1, epoch=0)] == [16, 16]
    assert batches == order(37, 16, seed=1, epoch=0)
    assert batches != order(37, 16, seed=1, epoch=1) and batches != order(37, 16, seed=2, epoch=0)


def test_processes_that_decode_are_for_gpus_that_would_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    assert [TrainSettings().processes(device) for device in ("cpu", "cuda", "cuda:1", "mps")] == [0, 4, 4, 0]
    assert TrainSettings(augment="none").processes("cuda") == 0
    with monkeypatch.context() as patch:
        patch.setattr("multiprocessing.get_start_method", lambda **_: "spawn")
        assert (TrainSettings().processes("cuda"), TrainSettings(workers=2).processes("cuda")) == (0, 2)
    assert [TrainSettings(workers=n).processes(device) for n in (0, 3) for device in ("cpu", "cuda")] == [0, 0, 3, 3]


def test_augmentation_does_not_depend_on_workers(few: Task, pictoclip: Backbone) -> None:
    images = Augmented(few.shots(4, seed=1).train, pictoclip.preprocess, "crop_flip", seed=1)
    plan = [(epoch, batch) for epoch in range(2) for batch in order(24, 8, 1, epoch)]
    state = torch.get_rng_state()
    alone = list(training_batches(images, plan, workers=0))
    assert torch.equal(torch.get_rng_state(), state)
    parallel = list(training_batches(images, plan, workers=2))
    for one, other in zip(alone, parallel, strict=True):
        assert torch.equal(one.pixels, other.pixels) and torch.equal(one.labels, other.labels)
    again = Augmented(images.split, pictoclip.preprocess, "crop_flip", seed=2)
    assert not torch.equal(again[0, 0].pixels, images[0, 0].pixels)
    assert not torch.equal(images[1, 0].pixels, images[0, 0].pixels)


@pytest.mark.parametrize("augment", ["crop_flip", "randaugment"])
def test_views_are_functions_of_seed_epoch_index_and_view(few: Task, pictoclip: Backbone, augment: Augment) -> None:
    split = few.shots(4, seed=1).train
    one, two, three = (Augmented(split, pictoclip.preprocess, augment, 1, views) for views in (1, 2, 3))
    plan = [(epoch, batch) for epoch in range(2) for batch in order(24, 8, 1, epoch)]
    size = pictoclip.shape.image_size
    for single, alone, parallel, triple in zip(
        *(training_batches(i, plan, workers=w) for i, w in ((one, 0), (two, 0), (two, 2), (three, 0))), strict=True
    ):
        assert alone.pixels.shape == (8, 2, 3, size, size) and alone.pixels.dtype == torch.uint8
        assert torch.equal(alone.pixels, parallel.pixels) and torch.equal(alone.labels, single.labels)
        assert torch.equal(alone.pixels[:, 0], single.pixels)  # more views leave the others as they are
        assert torch.equal(alone.pixels, triple.pixels[:, :2])
        assert all(not torch.equal(first, second) for first, second in alone.pixels)
    assert not torch.equal(two[0, 0].pixels[1], two[1, 0].pixels[1])
    assert not torch.equal(two[0, 0].pixels[1], Augmented(split, pictoclip.preprocess, augment, 2, 2)[0, 0].pixels[1])
    assert torch.equal(*Augmented(split, pictoclip.preprocess, "none", 1, 2)[0, 0].pixels)


def test_same_seed_same_bytes_and_an_untouched_backbone(few: Task, pictoclip: Backbone, tmp_path: Path) -> None:
    before = {name: value.clone() for name, value in pictoclip.clip.state_dict().items()}
    task = few.shots(4, seed=1)
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        ra.fit(ra.RMAdapter(pictoclip, seed=seed), task, tmp_path / name, show_progress=False, epochs=2, seed=seed)
    digests = [sha256(tmp_path / name / "adapter_model.safetensors") for name in "abc"]
    assert digests[0] == digests[1] != digests[2]
    for name, value in pictoclip.clip.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert (tmp_path / "a" / "steps.jsonl").read_text() == (tmp_path / "b" / "steps.jsonl").read_text()


@pytest.mark.parametrize(
    ("images", "batch_size", "updates", "epochs"),
    [
        (464, 16, 600, 21),  # 29 steps an epoch: 609
        (768, 16, 600, 12),  # 48: 576 is nearer than 624
        (3472, 16, 600, 3),
        (3472, 16, 100, 1),  # at least one
        (29, 16, 600, 600),  # a last, smaller batch is dropped
        (5, 16, 7, 7),  # unless it is the only one
    ],
)
def test_updates_become_whole_epochs(images: int, batch_size: int, updates: int, epochs: int) -> None:
    settings = TrainSettings(epochs=4, updates=updates, batch_size=batch_size).whole(images)
    assert (settings.epochs, settings.updates) == (epochs, None)
    assert TrainSettings(epochs=4).whole(images).epochs == 4


def test_training_sees_the_epochs_that_updates_came_to(few: Task, pictoclip: Backbone, tmp_path: Path) -> None:
    """Schedule, what is called after an epoch, and the checkpoint's identity are those of a run of so many epochs."""
    task, settings = few.shots(4, seed=1), {"batch_size": 8, "schedule": "cosine", "show_progress": False}
    ends: list[tuple[int, int]] = []

    def method(stop: int = 0) -> ra.RMAdapter:
        made = ra.RMAdapter(pictoclip)

        def after_epoch(epoch: int, epochs: int) -> None:
            ends.append((epoch, epochs))
            if epoch == stop:
                raise KeyboardInterrupt

        made.after_epoch = after_epoch
        return made

    whole = ra.fit(method(), task, tmp_path / "epochs", epochs=3, **settings)
    assert whole.steps == 9 and ends == [(1, 3), (2, 3), (3, 3)]
    assert ra.fit(method(), task, tmp_path / "updates", updates=10, **settings).steps == 9
    with pytest.raises(KeyboardInterrupt):
        ra.fit(method(stop=2), task, tmp_path / "cut", updates=8, **settings)
    with pytest.raises(UserError, match="other settings"):
        ra.fit(method(), task, tmp_path / "cut", resume=True, updates=12, **settings)
    ra.fit(method(), task, tmp_path / "cut", resume=True, updates=9, **settings)
    for folder in ("updates", "cut"):
        for file in ("adapter_model.safetensors", "steps.jsonl"):
            assert sha256(tmp_path / folder / file) == sha256(tmp_path / "epochs" / file)


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_an_interrupted_run_goes_on_to_the_same_bytes(
    few: Task, pictoclip: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, optimizer: str
) -> None:
    task = few.shots(4, seed=1)
    settings = {"epochs": 4, "optimizer": optimizer, "batch_size": 8, "show_progress": False}
    ra.fit(ra.RMAdapter(pictoclip), task, tmp_path / "whole", **settings)

    original, calls = ra.RMAdapter.terms, 0

    def interrupt(*args: object) -> object:
        nonlocal calls
        calls += 1
        if calls == 8:  # in the middle of the third epoch
            raise KeyboardInterrupt
        return original(*args)

    with monkeypatch.context() as patch:
        patch.setattr(ra.RMAdapter, "terms", interrupt)
        with pytest.raises(KeyboardInterrupt):
            ra.fit(ra.RMAdapter(pictoclip), task, tmp_path / "cut", **settings)
    assert not (tmp_path / "cut" / "adapter_model.safetensors").exists()
    with pytest.raises(UserError, match="not empty"):
        ra.fit(ra.RMAdapter(pictoclip), task, tmp_path / "cut", **settings)
    with pytest.raises(UserError, match="other settings"):
        ra.fit(ra.RMAdapter(pictoclip), task, tmp_path / "cut", resume=True, **{**settings, "batch_size": 6})
    ra.fit(ra.RMAdapter(pictoclip), task, tmp_path / "cut", resume=True, **settings)
    for file in ("adapter_model.safetensors", "steps.jsonl"):
        assert sha256(tmp_path / "cut" / file) == sha256(tmp_path / "whole" / file)
    assert not (tmp_path / "cut" / "checkpoint.safetensors").exists()
    with pytest.raises(UserError, match="its run is finished"):
        ra.fit(ra.RMAdapter(pictoclip), task, tmp_path / "cut", resume=True, **settings)


def test_the_log_names_every_term(few: Task, pictoclip: Backbone, tmp_path: Path) -> None:
    result = ra.fit(ra.RMAdapter(pictoclip), few.shots(4, seed=1), tmp_path / "run", show_progress=False, epochs=2)
    lines = [json.loads(line) for line in (tmp_path / "run" / "steps.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(result.steps))
    terms = {"ce", "reconstruction_image", "reconstruction_text", "consistency_image", "consistency_text"}
    for line in lines:
        assert line.keys() == {"step", "epoch", "lr", "loss"} | terms
        assert line["loss"] == pytest.approx(sum(line[term] for term in terms))
    assert result.terms.keys() == terms
    shots = json.loads((tmp_path / "run" / "shots.json").read_text())
    assert len(shots["train"]) == 24 and shots["classes"] == list(few.classes)


def test_a_step_reads_its_losses_at_once(few: Task, pictoclip: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each read would wait for a GPU."""
    step, steps = train._Run._step, 0

    def counted(*args: Any) -> dict[str, float]:
        nonlocal steps
        reads, steps = list[torch.Tensor](), steps + 1
        with monkeypatch.context() as patch:
            for way in ("item", "tolist", "__float__"):
                plain = getattr(torch.Tensor, way)
                patch.setattr(torch.Tensor, way, lambda x, plain=plain: (reads.append(x), plain(x))[1])
            values = step(*args)
        assert [read.numel() for read in reads] == [len(values)] and len(values) > 3
        return values

    monkeypatch.setattr(train._Run, "_step", counted)
    ra.fit(ra.RMAdapter(pictoclip), few.shots(2, seed=1), show_progress=False, epochs=2)
    assert steps == 2


def test_a_loss_that_is_not_finite_stops_with_its_step_and_name(few: Task, pictoclip: Backbone) -> None:
    with pytest.raises(TrainingError, match=r"not finite at step \d+ of \d+\n.*(ce|reconstruction|consistency)"):
        ra.fit(
            ra.RMAdapter(pictoclip),
            few.shots(4, seed=1),
            show_progress=False,
            optimizer="sgd",
            lr=1e30,
            warmup_epochs=0,
            epochs=3,
            batch_size=4,
        )


def test_what_is_refused(few: Task, pictoclip: Backbone, tmp_path: Path) -> None:
    method = ra.RMAdapter(pictoclip)
    with pytest.raises(SettingError, match="did you mean 'epochs'"):
        ra.fit(method, few, epoch=3)
    with pytest.raises(SettingError, match="precision is not valid"):
        ra.fit(method, few, precision="fp8")
    with pytest.raises(DataError, match="no training items"):
        ra.fit(method, Task("empty", few.classes, few.template, (), (), few.test_items))
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="is a file"):
        ra.fit(method, few, tmp_path / "file")


def test_a_training_that_is_all_warm_up_says_so(few: Task, pictoclip: Backbone) -> None:
    short = {"epochs": 1, "warmup_epochs": 1, "show_progress": False}
    with pytest.warns(UserWarning, match="1 epoch, all of them warm-up at a rate of 1e-05"):
        ra.fit(ra.RMAdapter(pictoclip), few.shots(1, seed=1), **short)
    ra.fit(ra.RMAdapter(pictoclip), few.shots(1, seed=1), **short, lr=1e-5)  # a note would be an error here
    ra.fit(ra.ZeroShot(pictoclip), few.shots(1, seed=1), **short)


def test_zero_shot_trains_nothing_and_is_saved_all_the_same(few: Task, pictoclip: Backbone, tmp_path: Path) -> None:
    result = ra.fit(ra.ZeroShot(pictoclip), few.shots(1, seed=1), tmp_path / "run", show_progress=False)
    assert result.steps == 0
    loaded = ra.load(tmp_path / "run")
    scores = [ra.evaluate(method.predictor(few.classes), few.val) for method in (ra.ZeroShot(pictoclip), loaded)]
    assert scores[0] == scores[1]


def test_precisions_follow_one_another_in_a_process(few: Task, pictoclip: Backbone) -> None:
    found = {}
    for precision in ("bf16", "fp32"):
        result = ra.fit(
            ra.RMAdapter(pictoclip), few.shots(4, seed=1), show_progress=False, epochs=2, precision=precision
        )
        found[precision] = result.terms["ce"]
    assert found["fp32"] != found["bf16"] == pytest.approx(found["fp32"], rel=0.1)


def test_a_precision_that_the_device_lacks_is_refused(few: Task, pictoclip: Backbone) -> None:
    # accelerate would train in float32 without a word
    with pytest.raises(UserError, match="cpu cannot train in fp16"):
        ra.fit(ra.RMAdapter(pictoclip), few.shots(1, seed=1), show_progress=False, precision="fp16")


def test_published_settings_move_a_wide_backbone() -> None:
    """The gradient scale is what lets SGD at 0.0015 train an adapter whose output is scaled by 0.001."""
    _, backbone = small_pair()
    task = ra.load_task("pictograms/food")._only(range(4)).shots(4, seed=1)
    found = {}
    for scaled in (True, False):
        method = ra.RMAdapter(backbone, gradient_scale=scaled, consistency_image=0, consistency_text=0)
        start = {name: value.clone() for name, value in method.state_dict().items()}
        ra.fit(method, task, show_progress=False, epochs=1, weight_decay=0)
        found[scaled] = sum(
            float((value - start[name]).norm()) for name, value in method.state_dict().items() if "up" in name
        )
    assert found[True] > 100 * found[False] > 0


@pytest.mark.parametrize("workers", [0, 1])
def test_a_broken_image_is_named_wherever_it_is_decoded(photos: Path, pictoclip: Backbone, workers: int) -> None:
    for path in (photos / "otter").iterdir():
        path.write_bytes(b"broken")
    with pytest.raises(DataError, match=r"otter/\d\.png is not a readable image\n  given:") as caught:
        ra.fit(ra.RMAdapter(pictoclip), ra.load_task(photos), show_progress=False, epochs=1, workers=workers)
    assert "Traceback" not in str(caught.value) and caught.value.remedy


def test_seconds_are_those_of_all_processes(
    few: Task, pictoclip: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"epochs": 3, "batch_size": 8, "show_progress": False}
    save, spent = checkpoint.save, 100.0

    def stop(*given: object) -> None:
        save(*given[:5], spent, *given[6:])  # type: ignore[arg-type]
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save", stop)
        with pytest.raises(KeyboardInterrupt):
            ra.fit(ra.RMAdapter(pictoclip), few.shots(2, seed=1), tmp_path / "run", **settings)
    result = ra.fit(ra.RMAdapter(pictoclip), few.shots(2, seed=1), tmp_path / "run", resume=True, **settings)
    assert 100 < result.seconds < 150 and result.images_per_second == pytest.approx(24 / result.seconds)


@pytest.mark.parametrize(("share", "saved"), [(0, 5), (1e9, 1)])
def test_checkpoints_take_a_small_share_of_the_time(
    few: Task, pictoclip: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, share: float, saved: int
) -> None:
    save, calls = checkpoint.save, []
    monkeypatch.setattr(checkpoint, "save", lambda *given: calls.append(given[4]) or save(*given))
    monkeypatch.setattr(train, "SAVING", share)
    ra.fit(ra.RMAdapter(pictoclip), few.shots(1, seed=1), tmp_path, show_progress=False, epochs=6)
    assert calls == list(range(1, saved + 1))
