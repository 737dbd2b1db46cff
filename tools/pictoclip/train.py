"""Pre-trains a PictoCLIP on the rendered artwork, in runs that can be continued.

    python tools/pictoclip/train.py s --budget 75 --minutes 75      a whole run
    python tools/pictoclip/train.py s --budget 150 --minutes 75     the first half; the same line again is the second

Two single-thread processes train on halves of a batch: on a shared machine that beats one process with two threads.
The folder ``--out`` gets ``checkpoint.safetensors``, which has everything to continue, ``tokenizer.json``,
``log.jsonl`` and ``curve.png``. Needs the artwork that ``tools/pictograms/pretraining.py`` renders, and matplotlib.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import threading
import time
from multiprocessing import parent_process
from multiprocessing.connection import wait
from pathlib import Path

import checkpoint
import tokenizer as bpe
import torch
import torch.distributed as dist
from artwork import Artwork
from curve import draw
from torch.multiprocessing.spawn import start_processes
from trainer import Plan, Trainer
from zero_shot import ZeroShot

ROOT = Path(__file__).resolve().parents[2]


def report(trainer: Trainer, watch: ZeroShot, speed: float) -> None:
    """Log a line, draw the curve, and save the checkpoint."""
    state, out = trainer.state, trainer.plan.out
    scores = watch(trainer.clip)
    row = {"minutes": round(state.minutes, 2), "progress": round(state.progress, 4), "images": state.images}
    row |= {"loss": round(state.loss, 4), "scale": round(trainer.clip.logit_scale.exp().item(), 2)}
    row |= {"images_per_second": round(speed), **scores}
    state.log.append(row)
    checkpoint.save(trainer)
    (out / "log.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in state.log), encoding="utf-8")
    draw(state.log, out / "curve.png")
    print(json.dumps(row), flush=True)


def run(rank: int, plan: Plan, port: int) -> None:
    """One process of a run."""
    parent = parent_process()
    if parent is not None:  # a killed call must not leave processes that write its checkpoint on
        threading.Thread(target=lambda: wait([parent.sentinel]) and os._exit(1), daemon=True).start()
    torch.set_num_threads(1)
    if plan.processes > 1:
        address = f"tcp://127.0.0.1:{port}"
        dist.init_process_group("gloo", init_method=address, rank=rank, world_size=plan.processes)
    trainer = Trainer(plan, rank)
    if not checkpoint.load(trainer):
        trainer.start()
    watch = ZeroShot(trainer.preprocess, trainer.tokenize) if rank == 0 else None
    if plan.processes > 1:
        dist.barrier()
    state, begun = trainer.state, time.monotonic()
    before, images, told = state.minutes, state.images, begun
    last, every = before, plan.every
    while state.progress < 1 and state.minutes - before < plan.minutes:
        trainer.step(before + (time.monotonic() - begun) / 60)
        done = state.progress >= 1 or state.minutes - before >= plan.minutes
        if watch and (done or state.minutes - last >= every):
            report(trainer, watch, (state.images - images) / (time.monotonic() - told))
            last, images, told = state.minutes, state.images, time.monotonic()
    if plan.processes > 1:
        dist.barrier()
        dist.destroy_process_group()


def prepare(plan: Plan) -> None:
    """Make the tokenizer of a new run; a run that is continued keeps its own."""
    plan.out.mkdir(parents=True, exist_ok=True)
    file = plan.out / "tokenizer.json"
    if not file.exists():
        artwork = Artwork(plan.artwork)
        file.write_text(bpe.compact(bpe.build(artwork.kept_texts(), artwork.counted_texts())), encoding="utf-8")


def read_arguments() -> Plan:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("size", help="a size of models.toml")
    parser.add_argument("--minutes", type=float, required=True, help="train this long, then stop")
    total = parser.add_mutually_exclusive_group(required=True)
    total.add_argument("--budget", type=float, default=0.0, help="minutes that the whole schedule is stretched over")
    total.add_argument("--images", type=int, default=0, help="the same in images, for comparisons on a busy machine")
    parser.add_argument("--every", type=float, default=3.0, help="minutes between reports, which save a checkpoint")
    parser.add_argument("--artwork", type=Path, default=ROOT / "build" / "pictoclip" / "artwork")
    parser.add_argument("--out", type=Path, help="the run's folder; the default is build/pictoclip/SIZE")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--processes", type=int, default=2, help="single-thread processes")
    parser.add_argument(
        "--set", nargs="*", default=[], metavar="NAME=VALUE", help="changes to models.toml's train table"
    )
    given = parser.parse_args()
    changes = {name: json.loads(value) for name, _, value in (change.partition("=") for change in given.set)}
    out = given.out or ROOT / "build" / "pictoclip" / given.size
    values = {**vars(given), "out": out, "changes": changes}
    del values["set"]
    return Plan(**values)


def main() -> None:
    """Start the processes of a run."""
    plan = read_arguments()
    prepare(plan)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    start_processes(run, (plan, port), nprocs=plan.processes, start_method="spawn")


if __name__ == "__main__":
    main()
