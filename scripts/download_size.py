"""Says what `pip install ARGUMENTS` would download, and how much, before it does.

usage: download_size.py PIP-INSTALL-ARGUMENT...
Asks pip itself what it would install (its --report), then each server for the size of the file.
"""
import json
import os
import subprocess
import sys
import urllib.parse
import urllib.request


def size_of(url):
    """Bytes of the file at `url`, or None when the server does not say."""
    parts = urllib.parse.urlsplit(url)
    if parts.scheme == "file":
        return os.path.getsize(urllib.parse.unquote(parts.path))
    try:
        request = urllib.request.Request(url, method="HEAD")
        with urllib.request.urlopen(request, timeout=30) as answer:
            return int(answer.headers["Content-Length"])
    except (OSError, TypeError, ValueError):
        return None


def megabytes(size):
    return "size unknown" if size is None else f"{size / 1e6:.1f} MB" if size < 1e9 else f"{size / 1e9:.2f} GB"


def main():
    command = [sys.executable, "-m", "pip", "install", "-qq", "--dry-run", "--report", "-", *sys.argv[1:]]
    answer = subprocess.run(command, stdout=subprocess.PIPE)
    if answer.returncode != 0:
        return answer.returncode
    wheels = []
    for item in json.loads(answer.stdout)["install"]:
        url = item["download_info"]["url"]
        wheels.append((size_of(url), f"{item['metadata']['name']} {item['metadata']['version']}"))
    if not wheels:
        return 0
    known = sum(size or 0 for size, _ in wheels)
    unknown = sum(size is None for size, _ in wheels)
    print(f"Python wheels: {megabytes(known)} to download" + (f", and {unknown} of unknown size" if unknown else ""))
    for size, name in sorted(wheels, key=lambda wheel: -(wheel[0] or 0))[:5]:
        print(f"  {megabytes(size):>12}  {name}")
    if len(wheels) > 5:
        print(f"  and {len(wheels) - 5} smaller ones")
    if known > 1e9:
        print("  This is torch with CUDA. Without an NVIDIA GPU, --torch-index URL with the CPU-only index")
        print("  (its address: PyTorch's install page) spares most of it. Ctrl-C now loses nothing.")
    sys.stdout.flush()
    return 0


sys.exit(main())
