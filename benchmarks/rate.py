"""How much of the machine's matrix-product rate a training step achieves, and what takes the rest.

    python benchmarks/rate.py [--method mma] [--classes 50] [--repeats 7] [--backbone ViT-B-16-quickgelu]

The arithmetic of a step is counted from its products (two operations a multiplication), as they run: work that is left
out does not count. The peak is the best rate of single products in float32, of the sizes that the step has and of large
squares, measured in turn with the step. The profile is the share of each operation's own time.
"""

from __future__ import annotations

import json
import statistics
from typing import Any

import torch
from common import interleaved, medians, parser, write
from step import TEMPLATE, backbone_of, batch, create, names, ours
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from rmadapter.methods import method_class

TIMES = 4
"""Products in a row, of which one measurement consists."""
OPERATIONS = 20
"""Lines of the profile."""


def attention(query: Any, key: Any, value: Any, *_: Any, out_shape: Any = None, **__: Any) -> int:
    """Of q (b, heads, l, channels) against keys and values: two products."""
    b, heads, rows, channels = query
    return int(2 * 2 * b * heads * rows * key[2] * channels)


def attention_backward(grad: Any, query: Any, key: Any, *_: Any, out_shape: Any = None, **__: Any) -> int:
    """Five products, one of which is the forward pass's own, made again."""
    b, heads, rows, channels = query
    return int(5 * 2 * b * heads * rows * key[2] * channels)


# torch counts the attention of GPUs alone.
CPU_ATTENTION = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: attention,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: attention_backward,
}


def operations(step: Any) -> int:
    """Floating-point operations of a step."""
    with FlopCounterMode(display=False, custom_mapping=CPU_ATTENTION) as counter:
        step()
    return int(counter.get_total_flops())


def products(rows: int, width: int, mlp: int) -> dict[str, tuple[Any, int]]:
    """Products to measure the peak with, and the operations of each."""
    sizes = {"2048": (2048, 2048, 2048), "4096": (4096, 4096, 4096), "qkv": (rows, width, 3 * width)}
    sizes |= {"fc": (rows, width, mlp), "proj": (rows, mlp, width)}
    made = {}
    for name, (m, k, n) in sizes.items():
        a, b, out = torch.randn(m, k), torch.randn(n, k).T, torch.empty(m, n)
        made[name] = (lambda a=a, b=b, out=out: [torch.mm(a, b, out=out) for _ in range(TIMES)], 2 * m * k * n * TIMES)
    return made


def profiled(step: Any) -> dict[str, float]:
    """Share of the operations with the largest own time, percent."""
    with profile(activities=[ProfilerActivity.CPU]) as found:
        step()
    events = sorted(found.key_averages(), key=lambda event: -event.self_cpu_time_total)
    total = sum(event.self_cpu_time_total for event in events)
    return {event.key: round(100 * event.self_cpu_time_total / total, 2) for event in events[:OPERATIONS]}


def main() -> None:
    """Measure and print."""
    made = parser(__doc__, repeats=7)
    made.add_argument("--backbone", default="ViT-B-16-quickgelu")
    made.add_argument("--method", default="mma")
    made.add_argument("--batch", type=int, default=16)
    made.add_argument("--classes", type=int, default=50)
    arguments = made.parse_args()
    if arguments.short:
        arguments.repeats = 1
    backbone = backbone_of(arguments.backbone, create(arguments.backbone))
    method = method_class(arguments.method)(backbone)
    if method.needs_teacher:
        raise SystemExit(f"{arguments.method} has a teacher, whose forward pass is not in this step: see parts.py")
    method.start(names(arguments.classes), TEMPLATE)
    step = ours(method, *batch(backbone, arguments.batch, arguments.classes)).step
    shape = backbone.shape.image
    patches = (backbone.shape.image_size // backbone.shape.patch_size) ** 2 + 1
    peaks, count = products(arguments.batch * patches, shape.width, shape.mlp), operations(step)
    times = interleaved({"step": step, **{name: run for name, (run, _) in peaks.items()}}, arguments.repeats)
    rates = {name: [each / 1e9 for each in (peaks[name][1] / t for t in times[name])] for name in peaks}
    best = [max(rates[name][i] for name in peaks) for i in range(arguments.repeats)]
    achieved = [count / 1e9 / seconds for seconds in times["step"]]
    share = [100 * a / b for a, b in zip(achieved, best, strict=True)]
    results = {
        "seconds": medians(times),
        "operations_G": round(count / 1e9, 1),
        "GFLOP_a_second": {"step": round(statistics.median(achieved), 1)}
        | {name: round(statistics.median(values), 1) for name, values in rates.items()},
        "percent_of_peak": {
            "median": round(statistics.median(share), 1),
            "least": round(min(share), 1),
            "most": round(max(share), 1),
        },
        "profile_percent": profiled(step),
    }
    print(json.dumps(results, indent=1))
    write("rate", arguments, results)


if __name__ == "__main__":
    main()
