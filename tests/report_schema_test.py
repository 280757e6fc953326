"""Every chart of the golden report, of one of a task, of a gate and of a history is valid Vega-Lite v6, inline, and was rendered.

Usage: report_schema_test.py <dsa-report>
"""
import json
import pathlib
import sys

from report_checks import GateRun, GoldenRun, HistoryRun, TaskRun, check, need, run


def schema() -> dict:
    altair = need("altair")
    file = pathlib.Path(altair.__file__).parent / "vegalite" / "v6" / "schema" / "vega-lite-schema.json"
    check(file.exists(), f"{file} does not exist; altair 6 carries it")
    return json.loads(file.read_text(encoding="utf-8"))


def two_rows(node):
    """Data rows are alike and thousands of them take the validator minutes: two stand for all."""
    if isinstance(node, dict):
        return {key: value[:2] if key == "values" and isinstance(value, list) and value and isinstance(value[0], dict)
                else two_rows(value) for key, value in node.items()}
    return [two_rows(value) for value in node] if isinstance(node, list) else node


def has_url(node) -> bool:
    if isinstance(node, dict):
        return any(key == "url" or has_url(value) for key, value in node.items())
    return isinstance(node, list) and any(has_url(value) for value in node)


def check_charts(make, words: list, kind, charts: int, validator) -> None:
    """Of what dsa-report writes on a folder of that kind."""
    with kind() as folder:
        said = run(make, *words, folder, "--python", sys.executable)
        check(said.returncode == 0, f"dsa-report ended with {said.returncode}: {said.stderr}")
        specs = sorted((folder / "charts").glob("*.vl.json"))
        check(len(specs) == charts, f"{charts} charts expected, found {[s.name for s in specs]}")
        for file in specs:
            spec = json.loads(file.read_text(encoding="utf-8"))
            error = next(validator.iter_errors(two_rows(spec)), None)
            if error is not None:
                deepest = error
                while deepest.context:
                    deepest = max(deepest.context, key=lambda e: len(e.absolute_path))
                sys.exit(f"FAILED: {file.name}: {'/'.join(map(str, deepest.absolute_path))}: {deepest.message[:300]}")
            check(not has_url({k: v for k, v in spec.items() if k != "$schema"}), f"{file.name} loads a url")
            stem = file.name.removesuffix(".vl.json")
            svg, png = folder / "charts" / f"{stem}.svg", folder / "charts" / f"{stem}.png"
            check(svg.exists() and "<svg" in svg.read_text(encoding="utf-8")[:200], f"{stem}.svg is no picture")
            check(png.exists() and png.read_bytes()[:4] == b"\x89PNG", f"{stem}.png is no picture")
            # 920 px is the page; PNGs are drawn at twice that.
            width = int.from_bytes(png.read_bytes()[16:20], "big") / 2
            check(width <= 920, f"{stem} is {width:.0f} px wide, the page has 920")
        broken = json.loads(specs[0].read_text(encoding="utf-8"))
        broken["title"] = {"txt": "misspelt"}
        check(next(validator.iter_errors(two_rows(broken)), None) is not None, "the schema accepts a misspelt field")


def main() -> None:
    jsonschema = need("jsonschema")
    need("vl_convert")
    validator = jsonschema.Draft7Validator(schema())
    check_charts(sys.argv[1], ["make"], GoldenRun, 8, validator)
    check_charts(sys.argv[1], ["make"], TaskRun, 4, validator)
    check_charts(sys.argv[1], ["gate"], GateRun, 1, validator)
    check_charts(sys.argv[1], ["history", "show", "--store"], lambda: HistoryRun(sys.argv[1]), 2, validator)
    print("all charts are valid")


if __name__ == "__main__":
    main()
