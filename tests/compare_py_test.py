"""Google Benchmark's own compare.py reads the results.json of two runs unchanged.

usage: compare_py_test.py DSA_BENCH"""
import importlib.util
import json
import os
import pathlib
import subprocess
import sys
import tempfile

COMPARE = pathlib.Path("/usr/share/benchmark/compare.py")  # package libbenchmark-tools
ROWS = """--suites kernels --kernels.lengths 64 --kernels.top-k 8 --kernels.heads 2 --kernels.widths 16
    --kernels.index-heads 2 --kernels.index-widths 16 --kernels.repetitions 9 --kernels.min-time 0.0001
    --kernels.ceilings=false --threads 1 --quiet --filter (select_top_k|sparse_attention).*backend:cpu""".split()

if not COMPARE.exists() or importlib.util.find_spec("scipy") is None:
    print(f"{COMPARE} or scipy is missing; scripts/setup.sh --tests installs both")
    sys.exit(77)


def results(folder, *more):
    environment = dict(os.environ, DSA_RECORD_UNFIT_BUILD="1")
    subprocess.run([sys.argv[1], *ROWS, *more, "--out", folder], check=True, env=environment, stdout=subprocess.DEVNULL)
    return next(folder.glob("*/results.json"))


with tempfile.TemporaryDirectory() as top:
    before = results(pathlib.Path(top) / "before")
    after = results(pathlib.Path(top) / "after", "--inject-slowdown", "8")
    found = pathlib.Path(top) / "found.json"
    done = subprocess.run([sys.executable, COMPARE, "--no-color", "--dump_to_json", found, "benchmarks", before, after],
                          capture_output=True, text=True)
    print(done.stdout + done.stderr)
    assert done.returncode == 0
    compared = {row["name"]: row for row in json.loads(found.read_text())}

rows = {name: row for name, row in compared.items() if "/pass:" in name}
assert {name.split("/")[0] for name in rows} == {"select_top_k", "sparse_attention"}, list(compared)
for name, row in rows.items():
    slower = sorted(one["time"] for one in row["measurements"])
    assert len(slower) == 9, (name, "repetitions are not rows of one name")
    assert slower[4] > 0.5, (name, "a slowdown by eight was not seen", slower)
    # A rank test needs repetitions of both runs.
    assert row["utest"]["time_pvalue"] < 0.05, (name, row["utest"])
print(f"compare.py found {len(rows)} rows, all slower")
