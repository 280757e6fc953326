"""dsa-report's exit codes and sentences, what it writes without vl-convert, and that it links no torch.

Usage: report_command_line_test.py <dsa-report>
"""
import csv
import pathlib
import re
import subprocess
import sys
import tempfile

from report_checks import GoldenRun, check, gate_row, run, write_gate, write_history

BINARY = str(pathlib.Path(sys.argv[1]).resolve())


def says(code: int, words: str, *arguments, **options) -> None:
    said = run(BINARY, *arguments, **options)
    check(said.returncode == code, f"{arguments}: exit {said.returncode}, not {code}: {said.stderr}")
    check(words in said.stderr, f"{arguments}: {words!r} is not in {said.stderr!r}")
    check(said.stderr.count("\n") == 1, f"{arguments}: more than one line: {said.stderr!r}")


def mistakes() -> None:
    says(1, "--colour", "make", "--colour", "red")
    says(1, "subcommand")
    says(1, "nowhere is not a folder", "make", "nowhere")
    with tempfile.TemporaryDirectory() as empty:
        says(1, f"{empty}/record.json does not exist", "make", empty)
        says(1, "no run found under results/", "make", cwd=empty)
        (pathlib.Path(empty) / "record.json").write_text('{"version": 1,\n "id": }')
        says(1, f"{empty}/record.json is not valid JSON: first mistake at line 2, column 8", "make", empty)
        (pathlib.Path(empty) / "record.json").write_text("")
        says(1, f"{empty}/record.json is not valid JSON: it ends too early, at line 1, column 1", "make", empty)
        (pathlib.Path(empty) / "record.json").write_text('{"version": 2, "id": "x"}')
        says(1, f"{empty}/record.json: record version 2 is newer than 1", "make", empty)


def without_pictures() -> None:
    with GoldenRun() as folder, tempfile.TemporaryDirectory() as bin_folder:
        bare = pathlib.Path(bin_folder) / "python"
        # A Python that sees no packages at all stands for one without vl-convert.
        bare.write_text(f'#!/bin/sh\nexec {sys.executable} -S -I "$@"\n')
        bare.chmod(0o755)
        said = run(BINARY, "make", folder, "--python", bare)
        check(said.returncode == 0, f"exit {said.returncode}: {said.stderr}")
        check("has no vl-convert" in said.stderr, f"the reason is missing: {said.stderr!r}")
        check(len(list((folder / "charts").glob("*.vl.json"))) == 8, "the chart files are missing")
        check(not list((folder / "charts").glob("*.svg")), "there are pictures")
        for name in ("report.md", "report.html"):
            text = (folder / name).read_text(encoding="utf-8")
            check("vl-convert-python" in text, f"{name} does not say how to get the pictures")
            check(".svg" not in text, f"{name} points at pictures that do not exist")
        says(0, "cannot run /nonexistent/python", "make", folder, "--python", "/nonexistent/python")


def newest_is_default() -> None:
    with tempfile.TemporaryDirectory() as place, GoldenRun() as golden:
        text = (golden / "record.json").read_text(encoding="utf-8")
        for name in ("20260101T000000", "20260202T000000"):
            folder = pathlib.Path(place) / "results" / name
            folder.mkdir(parents=True)
            (folder / "record.json").write_text(text, encoding="utf-8")
        run("touch", "-d", "2 hours ago", pathlib.Path(place) / "results/20260101T000000/record.json")
        said = run(BINARY, "make", "--no-pictures", cwd=place)
        check(said.stdout.splitlines()[0] == "results/20260202T000000/report.html", said.stdout)
        stale = pathlib.Path(place) / "results/20260202T000000/charts/old.vl.json"
        stale.write_text("{}")
        run(BINARY, "make", "--no-pictures", cwd=place)
        check(not stale.exists(), "a chart that is no longer drawn stayed behind")


def gates() -> None:
    with tempfile.TemporaryDirectory() as place:
        folder = pathlib.Path(place) / "gate"
        says(1, f"{folder}/verdict.json does not exist", "gate", folder)
        write_gate(folder)
        other = folder / "charts" / "other.svg"
        other.parent.mkdir()
        other.write_text("not of a gate")
        said = run(BINARY, "gate", folder, "--no-pictures")
        check(said.returncode == 0, f"exit {said.returncode}: {said.stderr}")
        check(said.stdout == f"{folder}/gate.html\n{folder}/gate.md\n", said.stdout)
        text = (folder / "gate.md").read_text(encoding="utf-8")
        check(text.startswith("**1 regression among 3 rows.**"), text)
        check((folder / "charts" / "gate_forest.vl.json").exists(), "no chart")
        check(other.exists(), "a gate's report removed a chart that is none of its own")
        write_gate(folder, rows=[{"id": "a", "verdict": "same-build"}])
        check(run(BINARY, "gate", folder, "--no-pictures").returncode == 0, "a gate without timed rows fails")
        check(not (folder / "charts" / "gate_forest.vl.json").exists(), "the chart of an earlier report stayed")
        for text, words in (('{"id": ', "is not valid JSON: it ends too early"), ("[]", "is not a gate's verdict"),
                            ("{}", 'has no "id"'), ('{"version": 9, "id": "x"}', "version 9 is newer than"),
                            ('{"id": "x", "rows": [{"pairing": {"rounds": "x"}}]}', "is not a gate's verdict")):
            (folder / "verdict.json").write_text(text)
            says(1, words, "gate", folder)


def histories() -> None:
    with tempfile.TemporaryDirectory() as place:
        root = pathlib.Path(place)
        gate, store = root / "gate", root / "never"
        says(1, "does not exist", "history", "add", gate, "--store", store)
        write_gate(gate, status="interrupted")
        says(1, "did not end", "history", "add", gate, "--store", store)
        write_gate(gate)
        says(1, "is no date", "history", "add", gate, "--store", store, "--date", "today")
        says(1, "is no commit", "history", "add", gate, "--store", store, "--commit", "a b")
        says(1, "--store", "history", "add", gate)
        says(1, "subcommand", "history")
        check(not store.exists(), "a refused gate left a store behind")
        says(1, f"{store}/history.jsonl does not exist", "history", "show", "--store", store)

        store = write_history(BINARY, root)
        before = (store / "history.jsonl").read_bytes()
        write_gate(gate, rows=[gate_row("sparse_attention/L:64", 2)])
        says(1, "already holds other values of commit c1003", "history", "add", gate, "--store", store,
             "--commit", "c1003", "--date", "2026-01-04T00:00:00Z")
        check((store / "history.jsonl").read_bytes() == before, "a refused commit changed the store")

        said = run(BINARY, "history", "show", "--store", store, "--out", root / "page", "--no-pictures")
        check(said.returncode == 0, f"exit {said.returncode}: {said.stderr}")
        check("sparse_attention/L:64: from c1014 to c1015: +8.0" in said.stdout, said.stdout)
        check(said.stdout.count("from c") == 1, f"more than one change: {said.stdout}")
        check(sorted(p.name for p in store.iterdir()) == ["history.jsonl"], "show wrote into the store")
        with (root / "page" / "otava.csv").open(encoding="utf-8", newline="") as file:
            rows = list(csv.reader(file))
        check(rows[0] == ["time", "commit", "sparse_attention/L:64", "dense_attention/L:64"], rows[0])
        check(len(rows) == 31 and all(len(row) == 4 and float(row[2]) > 0 for row in rows[1:]), "otava.csv has holes")
        (store / "history.jsonl").write_bytes(before + b"nonsense\n")
        says(1, "line 61 is not valid JSON", "history", "show", "--store", store)


def no_torch() -> None:
    needed = subprocess.run(["readelf", "-d", BINARY], capture_output=True, text=True, check=True).stdout
    libraries = re.findall(r"NEEDED.*\[(.*?)\]", needed)
    check(libraries != [], f"readelf found no libraries in {BINARY}")
    allowed = re.compile(r"^(libstdc\+\+|libm|libgcc_s|libc|libasan|libubsan|ld-linux.*)\.so")
    foreign = [name for name in libraries if not allowed.match(name)]
    check(foreign == [], f"dsa-report links {foreign}; it reads records only")



if __name__ == "__main__":
    mistakes()
    without_pictures()
    newest_is_default()
    gates()
    histories()
    no_torch()
    print("command line as promised")
