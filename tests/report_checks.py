"""What the report tests share: running dsa-report on a copy of the golden record, plain checks."""
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
