#!/usr/bin/env python3
"""Renders every *.vl.json of a folder to SVG and PNG, and writes the drawing scripts for the page.

Called by dsa-report. Exit code 10: vl-convert is not installed. No network is used.
"""
import argparse
import pathlib
import sys

NO_VL_CONVERT = 10


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("charts", type=pathlib.Path, help="folder of *.vl.json files")
    parser.add_argument("--bundle", type=pathlib.Path, help="where to write vega, vega-lite, vega-embed")
    parser.add_argument("--scale", type=float, default=2, help="PNG pixels a chart pixel")
    options = parser.parse_args()
    try:
        import vl_convert
    except ImportError:
        return NO_VL_CONVERT

    for spec_file in sorted(options.charts.glob("*.vl.json")):
        spec = spec_file.read_text(encoding="utf-8")
        stem = spec_file.name.removesuffix(".vl.json")
        try:
            # Titles and labels name system fonts; nothing is fetched.
            svg = vl_convert.vegalite_to_svg(spec, vl_version="6.4", allowed_base_urls=[])
            png = vl_convert.vegalite_to_png(spec, vl_version="6.4", scale=options.scale, allowed_base_urls=[])
        except ValueError as error:
            print(f"render_charts: {spec_file}: {error}", file=sys.stderr)
            return 1
        (options.charts / f"{stem}.svg").write_text(svg, encoding="utf-8")
        (options.charts / f"{stem}.png").write_bytes(png)
    if options.bundle:
        options.bundle.write_text(vl_convert.javascript_bundle(vl_version="6.4"), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
