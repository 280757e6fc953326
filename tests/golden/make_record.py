#!/usr/bin/env python3
"""Writes a made-up record of realistic shape, the input of the golden report test.

Every number is invented. `tests/golden/record.json` and `failures.json` are its output; run it only
to change what the golden report covers, then `tests/accept.sh`.
"""
import json
import math
import pathlib
import random

HERE = pathlib.Path(__file__).resolve().parent
rng = random.Random(7)
SEEDS = [1, 2, 3]


def digits(value, n=5):
    return float(f"{value:.{n}g}")


def noisy(value, spread, n):
    return [digits(value * (1 + rng.uniform(-spread, spread))) for _ in range(n)]


def quantity(name, unit, better="neither"):
    return {"name": name, "unit": unit, "better": better}


VARIANTS = [
    {"name": "dense", "summary": "every visible key", "role": "baseline", "colour_slot": 0},
    {"name": "dsa", "summary": "lightning indexer, causal top-k, sparse attention", "role": "candidate", "colour_slot": 1},
    {"name": "window", "summary": "the K most recent keys", "role": "control", "colour_slot": 2},
    {"name": "dsa_as_published", "summary": "the seed's mask, which lets future keys through", "role": "flawed", "colour_slot": 3},
]
BACKENDS = [
    {"name": "cpu", "description": "our O(L K) kernels | portable, AVX2, AVX-512", "role": "ours"},
    {"name": "torch-sdpa", "description": "scaled_dot_product_attention, flash path", "role": "peer"},
    {"name": "torch-mask", "description": "dense attention under a top-k mask, the seed's way", "role": "peer"},
    {"name": "torch-gather", "description": "gathers K keys a query, in chunks", "role": "peer"},
    {"name": "reference", "description": "plain loops in float64", "role": "oracle"},
]
metrics, series = [], []


def final_loss(variant, length):
    dense = 2.62 - 0.11 * math.log2(length / 64)
    shift = {"dense": 0, "dsa": 0.031, "window": 0.085, "dsa_as_published": -1.2 - 0.2 * math.log2(length / 64)}
    return dense + shift[variant]


def stages(variant, length):
    attention = 0.012 * (length / 64) ** 1.4
    parts = {"data": 0.0006, "attention": attention, "moe": 0.031 * length / 64, "head": 0.019 * length / 64,
             "optimizer": 0.011, "other": 0.004 * length / 64}
    if variant in ("dsa", "dsa_as_published"):
        parts["indexer"] = 0.35 * attention
        parts["topk"] = 0.12 * attention
        parts["attention"] = attention * (0.55 if variant == "dsa" else 1.1)
    if variant == "window":
        parts["attention"] = attention * 0.5
    order = ["indexer", "topk", "attention", "moe", "head", "optimizer", "data", "other"]
    return {name: parts[name] for name in order if name in parts}


def training(variant, length):
    top_k = {} if variant == "dense" else {"K": str(length // 4)}
    labels = {"level": "training", "id": f"train/variant:{variant}/L:{length}", "variant": variant,
              "L": str(length), **top_k}
    parts = stages(variant, length)
    step = sum(parts.values())

    def add(name, unit, better, samples, **more):
        metrics.append({"quantity": quantity(name, unit, better), "labels": {**labels, **more}, "samples": samples})

    losses, accuracies = [], []
    steps = noisy(step, 0.015, len(SEEDS))
    for seed, step_seconds in zip(SEEDS, steps):
        best = final_loss(variant, length) + rng.uniform(-0.012, 0.012)
        curve_labels = {**labels, "seed": str(seed)}
        xs, ys = [], []
        for step_number in range(0, 301, 20):
            start = 5.6 if variant != "dsa_as_published" else 5.9
            y = best + (start - best) * math.exp(-step_number / 55) + rng.uniform(0, 0.02)
            xs.append(step_number)
            ys.append(digits(y if step_number < 300 else best))
        series.append({"x": quantity("step", "1"), "y": quantity("validation_loss", "nats/token", "lower"),
                       "labels": curve_labels, "xs": xs, "ys": ys})
        series.append({"x": quantity("step", "1"), "y": quantity("step_time", "s", "lower"),
                       "labels": curve_labels, "xs": list(range(1, 301)),
                       "ys": [digits(step_seconds * (1.02 if i % 7 == 3 else 1), 4) for i in range(300)]})
        if variant != "dsa_as_published":
            positions = [length // 16 * i + length // 32 for i in range(16)]
            lag = 0.0 if variant == "dense" else (0.06 if variant == "dsa" else 0.16)
            by_position = [digits(best + 0.9 * math.exp(-p / 14) - 0.1 + lag * max(0, p - length // 4) / length
                                  + rng.uniform(-0.01, 0.01)) for p in positions]
            series.append({"x": quantity("position", "tokens"), "y": quantity("loss_by_position", "nats/token", "lower"),
                           "labels": curve_labels, "xs": positions, "ys": by_position})
        losses.append(digits(best))
        accuracies.append(digits(0.62 - 0.12 * best + 0.1))
    # One seed diverged at one length: it counts as missing, is never averaged and left no curve.
    if variant == "window" and length == 256:
        losses[1] = accuracies[1] = steps[1] = None
        gone = {**labels, "seed": str(SEEDS[1])}
        series[:] = [one for one in series if one["labels"] != gone]
    add("best_validation_loss", "nats/token", "lower", losses)
    add("final_validation_loss", "nats/token", "lower", losses)
    add("best_accuracy", "1", "higher", accuracies)
    indexer = 66560 if variant.startswith("dsa") else 0
    for name, value in {"parameters": 1180416 + indexer, "active_parameters": 918272 + indexer,
                        "indexer_parameters": indexer,
                        "flops_per_token": 5.5e6 + 4 * indexer + 12288 * length * (0.6 if top_k else 1)}.items():
        add(name, "FLOP" if name == "flops_per_token" else "1", "neither", [value] * len(SEEDS))
    add("resumed_steps", "1", "lower", [0, 40 if variant == "window" and length == 128 else 0, 0])
    add("missing_cpus", "CPUs", "lower", [0.01, 0.02, 0.01])
    add("step_time", "s", "lower", steps)
    add("throughput", "tokens/s", "higher", [t and digits(16 * length / t) for t in steps])
    add("peak_memory", "bytes", "lower", [int(2.1e8 * length / 64 * (1.25 if variant != "dense" else 1))] * len(SEEDS))
    for stage, seconds in parts.items():
        add("stage_time", "s", "lower", [digits(seconds)], stage=stage)


def kernel(family, backend, pass_, length, seconds, memory, error, top_k=None, n=9, wrong=None):
    labels = {"level": "kernel", "family": family, "pass": pass_, "backend": backend, "L": str(length),
              "dtype": "f32"}
    if family == "indexer_select":
        labels.update(I="4", J="32", K=str(top_k), scores="relu_plateau")
    else:
        labels.update(H="8", G="8", D="64", V="64")
        if top_k:
            labels.update(K=str(top_k), scores="relu_plateau")
    labels["id"] = f"{family}/pass:{pass_}/backend:{backend}/L:{length}" + (f"/K:{top_k}" if top_k else "")

    def add(name, unit, better, samples):
        metrics.append({"quantity": quantity(name, unit, better), "labels": labels, "samples": samples})

    dense_flops = 2 * 8 * 128 * length * length / 2
    flops = {"dense_attention": dense_flops, "sparse_attention": 2 * 8 * 128 * length * (top_k or 0),
             "indexer_select": 2 * 4 * 32 * length * length / 2}[family]
    samples = noisy(seconds, 0.03, n)
    add("time", "s", "lower", samples)
    add("flop_rate", "FLOP/s", "higher", [digits(flops / t) for t in samples])
    # A row of before there were ceilings stays readable: the reference has none.
    if backend != "reference":
        labels_with_bound = dict(labels, bound="flops")
        metrics.append({"quantity": quantity("ceiling_percent", "%", "higher"), "labels": labels_with_bound,
                        "samples": [digits(100 * flops / t / 2.5e11) for t in samples]})
    add("peak_memory", "bytes", "lower", [int(memory)])
    if wrong is None:
        add("error", "1", "lower", [error])
    else:
        add("wrong_members", "1", "lower", [wrong])
    if family == "sparse_attention":
        add("flop_ratio", "1", "neither",
            [digits(dense_flops / (flops + 2 * 4 * 32 * length * length / 2))])


def main():
    for length in (64, 128, 256):
        for variant in VARIANTS:
            training(variant["name"], length)
    for length in (1024, 2048, 4096, 8192):
        scale = length / 1024
        kernel("indexer_select", "cpu", "fwd", length, 1.5e-3 * scale**2, 2e6 * scale, 0, 256, wrong=0)
        kernel("indexer_select", "torch-mask", "fwd", length, 9e-3 * scale**2, 4.2e6 * scale**2, 0, 256, wrong=0)
        kernel("indexer_select", "torch-gather", "fwd", length, 9.4e-3 * scale**2, 4.2e6 * scale**2, 0, 256, wrong=0)
        for pass_, factor in (("fwd", 1.0), ("fwdbwd", 3.6)):
            kernel("dense_attention", "torch-sdpa", pass_, length, factor * 7.3e-3 * scale**1.85, 2.1e6 * scale, 4e-7)
            if length <= 4096:
                kernel("dense_attention", "reference", pass_, length, factor * 2.2 * scale**2, 8.4e6 * scale**2, 0, n=3)
            kernel("sparse_attention", "cpu", pass_, length, factor * 6.5e-3 * scale, 2.3e6 * scale, 5e-7, 256)
            kernel("sparse_attention", "torch-mask", pass_, length, factor * 12e-3 * scale**2.02, 37e6 * scale**2, 6e-7, 256)
            if length <= 4096:
                kernel("sparse_attention", "torch-gather", pass_, length, factor * 0.35 * scale, 55e6 * scale, 6e-7, 256, n=4)
    published = {"dense": {"best_validation_loss": [8.520, 7.281, 7.148], "best_accuracy": [0.043, 0.065, 0.076],
                           "step_time": [0.0584, 0.0621, 0.0667]},
                 "dsa_as_published": {"best_validation_loss": [3.561, 3.002, 1.778], "best_accuracy": [0.532, 0.576, 0.684],
                                      "step_time": [0.0654, 0.0677, 0.0678]}}
    units = {"best_validation_loss": "nats/token", "best_accuracy": "1", "step_time": "s"}
    reference = [{"x": quantity("L", "tokens"), "y": quantity(name, units[name], "lower"),
                  "labels": {"source": "the seed's README", "variant": variant}, "xs": [64, 128, 256], "ys": ys}
                 for variant, by_name in published.items() for name, ys in by_name.items()]
    claims = {1: ("causality", "positions", "positions whose loss reacts to their own next token"),
              5: ("truly_sparse", "slope", "time grows as an invented power of L")}
    status = {("flawed", 1): "failed", ("baseline", 5): "open"}
    audits = [{"name": name, "passed": (role := status.get((v["role"], number), "passed")) == "passed",
               "labels": {"level": "audit", "variant": v["name"], "number": str(number), "status": role},
               "observed": 63 if role == "failed" else 0, "required": 0, "unit": unit, "detail": detail}
              for v in VARIANTS for number, (name, unit, detail) in claims.items()]
    record = {"version": 1, "id": "20261125T010203", "command": "dsa-bench --config presets/quick.toml --filter 'L:.*|train'",
              "started": "2026-11-25T01:02:03Z", "ended": "2026-11-25T01:06:40Z", "status": "done", "error": "",
              "build": {"git": "0123abc", "dirty": "true", "compiler": "g++ 12.2.0", "torch": "2.13.0", "flops_model": "dsa-1"},
              "machine": {"cpu": "an invented processor", "cores": "2", "isa": "avx512", "memory": "24 GiB", "gpu": "none"},
              "config": {"lengths": [64, 128, 256], "seeds": SEEDS, "train": {"steps": 300, "batch": 16, "equivalence-margin": 0.02},
                         "attention": {"top-k-fraction": 0.25}},
              "variants": VARIANTS, "backends": BACKENDS, "metrics": metrics, "series": series,
              "reference_series": reference, "audits": audits}
    failures = [{"id": "dense_attention/pass:fwd/backend:reference/L:8192", "status": "skipped",
                 "reason": "reference needs 537 MB at L=8192; the budget is 256 MB", "labels": {"backend": "reference"}}]
    failures += [{"id": f"sparse_attention/pass:{p}/backend:torch-gather/L:8192/K:256", "status": "skipped",
                  "reason": "torch-gather was 40 times slower than the fastest at L=4096", "labels": {"backend": "torch-gather"}}
                 for p in ("fwd", "fwdbwd")]
    for name, value in (("record.json", record), ("failures.json", failures)):
        lines = json.dumps(value, ensure_ascii=False)
        # A line a metric: a diff of the record then shows which number changed.
        lines = lines.replace('}, {"quantity"', '},\n{"quantity"').replace('}, {"x"', '},\n{"x"')
        (HERE / name).write_text(lines + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
