"""What the report tests share: running dsa-report on a copy of the golden record, plain checks."""
import json
import pathlib
import shutil
import subprocess
import sys
import tempfile

GOLDEN = pathlib.Path(__file__).resolve().parent / "golden"


def need(package: str):
    """Imports a package or says what to install: a test that cannot run must not pass."""
    try:
        return __import__(package)
    except ImportError:
        sys.exit(f"this test needs {package}: {sys.executable} -m pip install -r scripts/requirements-test.txt")


def check(holds: bool, message: str) -> None:
    if not holds:
        sys.exit(f"FAILED: {message}")


def run(*words, **options) -> subprocess.CompletedProcess:
    return subprocess.run([str(w) for w in words], capture_output=True, text=True, timeout=300, **options)


class GoldenRun:
    """A copy of the golden record in a folder of its own, gone afterwards."""

    def __enter__(self) -> pathlib.Path:
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="dsa-report-"))
        for name in ("record.json", "failures.json"):
            shutil.copy(GOLDEN / name, self.folder)
        return self.folder

    def __exit__(self, *_):
        shutil.rmtree(self.folder, ignore_errors=True)


class TaskRun(GoldenRun):
    """A made-up run of a task: three variants over three K, two seeds, two lengths, depths."""

    def __enter__(self) -> pathlib.Path:
        folder = super().__enter__()
        run = json.loads((folder / "record.json").read_text(encoding="utf-8"))
        run["reference_series"], run["audits"], run["series"] = [], [], []
        run["metrics"] = [metric({"level": "task", "task": "needle", "summary": "an invented task", "guess": "anything"},
                                 "guess", [0.0625])]
        for variant, top_ks in (("dense", [0]), ("dsa", [4, 8, 16]), ("window", [4, 8, 16])):
            for length in (64, 128):
                for top_k in top_ks:
                    add_task_row(run, variant, length, top_k)
        (folder / "record.json").write_text(json.dumps(run), encoding="utf-8")
        return folder


def metric(labels: dict, name: str, samples: list) -> dict:
    return {"quantity": {"name": name, "unit": "1", "better": "higher"}, "labels": labels, "samples": samples}


def add_task_row(run: dict, variant: str, length: int, top_k: int) -> None:
    labels = {"level": "training", "id": f"{variant}{length}{top_k}", "variant": variant, "L": str(length),
              "task": "needle"}
    if top_k:
        labels["K"] = str(top_k)
    accuracy = 1 - 1 / (top_k or 64) if variant != "window" else top_k / 32
    run["metrics"].append(metric(labels, "final_accuracy", [accuracy, accuracy - 0.02]))
    if top_k:
        run["metrics"].append(metric({**labels, "layer": "0"}, "selection_recall", [0.5, 0.25]))
    for depth in ("0", "0.5", "1"):
        run["metrics"].append(metric({**labels, "depth": depth}, "exact_match", [accuracy * float(depth)] * 2))
    for seed in ("1", "2"):
        run["series"].append({"x": {"name": "step", "unit": "1", "better": "neither"},
                              "y": {"name": "accuracy", "unit": "1", "better": "higher"},
                              "labels": {**labels, "seed": seed}, "xs": [10, 20], "ys": [0.1, accuracy]})


GATE = {"version": 1, "id": "20261127T021500", "command": "dsa-bench gate --base old --head new",
        "started": "2026-11-27T02:15:00Z", "ended": "2026-11-27T02:25:12Z", "status": "done",
        "sentence": "1 regression among 3 rows.", "exit_code": 6, "armed": True, "alpha": 0.01,
        "micro_effect": 0.03, "macro_effect": 0.02, "slowdown": 1.1, "seconds": 612, "budget": 900,
        "arms": [{"name": "base", "path": "old", "git": "63ca9404646d", "text_hash": "9d3f6c2b1a0e4857"},
                 {"name": "head", "path": "new", "git": "f00dfeedbeef", "text_hash": "1b2c3d4e5f607182"}],
        "machine": {"cpu": "a processor"}}


def gate_row(name: str, ratio: float, verdict: str = "same") -> dict:
    return {"id": name, "level": "kernel", "verdict": verdict, "reason": "", "base_seconds": 0.01,
            "pairing": {"rounds": 15, "ratio": ratio, "low": ratio - 0.01, "high": ratio + 0.01, "verdict": verdict}}


def write_gate(folder: pathlib.Path, **changed) -> pathlib.Path:
    """A made-up gate of three rows; `changed` are fields of verdict.json."""
    rows = [gate_row("sparse_attention/L:64", 1.06, "regression"), gate_row("dense_attention/L:64", 1.001),
            {"id": "gone/L:64", "level": "kernel", "verdict": "missing", "reason": "Only base has it."}]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "verdict.json").write_text(json.dumps({**GATE, "rows": rows, **changed}), encoding="utf-8")
    return folder


def write_history(binary, place: pathlib.Path, commits: int = 30) -> pathlib.Path:
    """A store of made-up gates: one row gets 8 % slower in the middle, one stays."""
    for i in range(commits):
        wave = 0.004 * ((i * 7) % 5 - 2)
        rows = [gate_row("sparse_attention/L:64", (1.08 if i >= commits // 2 else 1.0) + wave),
                gate_row("dense_attention/L:64", 1.3 if i == 4 else 0.95 + wave)]
        write_gate(place / "gate", rows=rows)
        said = run(binary, "history", "add", place / "gate", "--store", place / "store", "--commit", f"c{1000 + i}",
                   "--date", f"2026-{1 + i // 28:02}-{1 + i % 28:02}T00:00:00Z")
        check(said.returncode == 0, f"history add ended with {said.returncode}: {said.stderr}")
    return place / "store"


class GateRun:
    """A folder of a made-up gate, gone afterwards."""

    def __enter__(self) -> pathlib.Path:
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="dsa-gate-"))
        return write_gate(self.folder)

    def __exit__(self, *_):
        shutil.rmtree(self.folder, ignore_errors=True)


class HistoryRun(GateRun):
    """A store of made-up gates."""

    def __init__(self, binary):
        self.binary = binary

    def __enter__(self) -> pathlib.Path:
        super().__enter__()
        return write_history(self.binary, self.folder)
