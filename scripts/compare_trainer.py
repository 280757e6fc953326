"""dsa-bench's trainer beside plain PyTorch (scripts/seed_reference.py), from the same weights on the same batches.

    compare_trainer.py speed  [--bench FILE] [--out FILE] [--lengths 64,128,256] [--rounds 7] [flags of dsa-bench]
    compare_trainer.py curves [--bench FILE] [--out FILE] [--lengths 64] [--steps 30] [--twin] [flags of dsa-bench]

speed: the trainers take turns, so that whatever slows the machine slows all of them: a round is a few steps of each,
its first place rotates. Printed are the medians of all steps after the warm-up, the median of the rounds' ratios, and
the peak of resident memory beyond the start of the process. curves: without dropout and router noise; fails if the
losses of one step differ by more than 1e-3 of them. --twin trains plain PyTorch a second time, every other weight one
unit in its last place higher: so far does rounding alone take it from itself. Settings: presets/as-published.toml,
then the flags."""
import argparse
import json
import math
import os
import pathlib
import subprocess
import sys
import tempfile
from statistics import median

ROOT = pathlib.Path(__file__).resolve().parent.parent
TOLERANCE = 1e-3
WARM_UP = 3
# Idle trainers must not spin on the cores of the one that is measured.
ENVIRONMENT = {**os.environ, "OMP_WAIT_POLICY": "passive"}


class Trainer:
    def __init__(self, name, command):
        self.name, self.seconds, self.rounds, self.losses, self.peak = name, [], [], [], 0
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(
            command, stdin=pipe, stdout=pipe, text=True, cwd=ROOT, env=ENVIRONMENT
        )
        self.ready = self.answer()

    def answer(self):
        line = self.process.stdout.readline()
        if not line:
            sys.exit(f"{self.name} ended with exit code {self.process.wait()}")
        return json.loads(line)

    def ask(self, request, answers=1):
        self.process.stdin.write(request + "\n")
        self.process.stdin.flush()
        return [self.answer() for _ in range(answers)]

    def train(self, steps):
        answers = self.ask(f"step {steps}", steps)
        self.losses += [answer["loss"] for answer in answers]
        return [answer["seconds"] for answer in answers]

    def close(self):
        self.peak = self.ask("memory")[0]["peak_bytes"]
        self.process.stdin.close()
        self.process.wait()


def trainers(options, length, steps, precisions, flags, peers=("f32",)):
    """Ours in each precision, and plain PyTorch in each of `peers` from the weights of the first."""
    start = os.path.join(options.scratch, f"start{length}.safetensors")
    ours = []
    for precision in precisions:
        command = [options.bench, "steps", "--config", "presets/as-published.toml"]
        command += ["--variants", options.variant, "--lengths", str(length)]
        command += ["--threads", str(options.threads), *flags]
        command += ["--train.steps", str(steps), "--train.precision", precision]
        ours.append(Trainer(f"dsa-bench {precision}", command))
    ours[0].ask(f"start {start}")
    script = ROOT / "scripts" / "seed_reference.py"
    started = []
    for kind in peers:
        command = [sys.executable, script, start, str(options.threads), kind]
        started.append(Trainer(f"plain PyTorch {kind}", command))
    os.remove(start)
    for peer in started:
        if peer.ready["parameters"] != ours[0].ready["parameters"]:
            sys.exit(f"plain PyTorch has {peer.ready['parameters']} parameters, not {ours[0].ready['parameters']}")
    return [*ours, *started]


def furthest(losses, others):
    """The step (from 0) in which two curves are furthest apart, and how far, as a share of the second."""
    apart = [abs(a - b) / abs(b) for a, b in zip(losses, others)]
    apart = [share if math.isfinite(share) else math.inf for share in apart]
    step = max(range(len(apart)), key=apart.__getitem__)
    return step, apart[step]


def speed(options, flags):
    print(f"{'L':>5} {'trainer':18} {'s/step':>8} {'min':>8} {'faster than plain PyTorch':>26} {'peak MiB':>9} {'of its':>7}")
    results = []
    for length in options.lengths:
        per_round = max(1, 256 // length)
        all_steps = WARM_UP + options.rounds * per_round
        contestants = trainers(options, length, all_steps, ["f32", "bf16"], flags)
        for trainer in contestants:
            trainer.train(WARM_UP)
        for number in range(options.rounds):
            first = number % len(contestants)
            for trainer in contestants[first:] + contestants[:first]:
                seconds = trainer.train(per_round)
                trainer.seconds += seconds
                trainer.rounds.append(sum(seconds))
        for trainer in contestants:
            trainer.close()
        peer = contestants[-1]
        for trainer in contestants:
            ratio = median(p / t for p, t in zip(peer.rounds, trainer.rounds))
            row = {"length": length, "trainer": trainer.name, "step_seconds": median(trainer.seconds)}
            row |= {"least_step_seconds": min(trainer.seconds), "ratio_to_peer": ratio}
            row |= {"peak_bytes": trainer.peak, "peak_of_peers": trainer.peak / peer.peak}
            row |= {"seconds": trainer.seconds, "losses": trainer.losses}
            results.append(row)
            print(
                f"{length:5} {trainer.name:18} {row['step_seconds']:8.4f} {min(trainer.seconds):8.4f} {ratio:25.2f}x"
                f" {trainer.peak / 2**20:9.0f} {row['peak_of_peers']:7.2f}",
                flush=True,
            )
    return results, 0


def curves(options, flags):
    still = ["--model.dropout", "0", "--attention.dropout", "0", "--model.router-noise", "0"]
    results, code = [], 0
    for length in options.lengths:
        kinds = ["f32", "nudged"] if options.twin else ["f32"]
        contestants = trainers(options, length, options.steps, ["f32"], [*still, *flags], kinds)
        for trainer in contestants:
            trainer.train(options.steps)
            trainer.close()
        ours, peer, *twin = contestants
        worst, apart = furthest(ours.losses, peer.losses)
        agrees = apart <= TOLERANCE
        print(
            f"L={length} {options.variant}: losses {ours.losses[0]:.4f} to {ours.losses[-1]:.4f}, {options.steps} steps;"
            f" furthest apart in step {worst + 1}: {ours.losses[worst]:.6f} and {peer.losses[worst]:.6f},"
            f" {apart:.1e} of it: {'they agree' if agrees else f'more than {TOLERANCE}'}"
        )
        results.append({"length": length, "ours": ours.losses, "peer": peer.losses, "apart": apart})
        if twin:
            step, rounding = furthest(twin[0].losses, peer.losses)
            print(f"  plain PyTorch, half of its weights a last place higher, is {rounding:.1e} apart from itself in step {step + 1}")
            results[-1] |= {"twin": twin[0].losses, "twin_apart": rounding}
        code = code or (0 if agrees else 1)
    return results, code


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["speed", "curves"])
    parser.add_argument("--bench", default=str(ROOT / "build/release/bin/dsa-bench"))
    parser.add_argument("--out", help="JSON file of all numbers")
    parser.add_argument("--variant", default="dense", choices=["dense", "dsa_as_published"])
    parser.add_argument("--lengths", type=lambda text: [int(word) for word in text.split(",")])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--twin", action="store_true")
    options, flags = parser.parse_known_args()
    if options.twin and options.what == "speed":
        parser.error("--twin compares curves; leave it out with speed")
    options.lengths = options.lengths or ([64, 128, 256] if options.what == "speed" else [64])
    with tempfile.TemporaryDirectory() as options.scratch:
        results, code = (speed if options.what == "speed" else curves)(options, flags)
    if options.out:
        commit = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True)
        facts = {"command": sys.argv, "commit": commit.stdout.strip(), "variant": options.variant}
        facts |= {"threads": options.threads, "results": results}
        pathlib.Path(options.out).write_text(json.dumps(facts, indent=1) + "\n")
    return code


if __name__ == "__main__":
    sys.exit(main())
