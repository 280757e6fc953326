"""Our trainer and the same model in plain PyTorch, from the same weights, have the same losses.

usage: trainer_peer_test.py DSA_BENCH"""
import importlib.util
import pathlib
import random
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
TINY = """--data.tokenizer byte --model.vocab-size 512 --attention.d-model 64 --attention.n-heads 4
    --attention.n-kv-heads 4 --attention.head-width 16 --attention.index-heads 2 --attention.index-width 16
    --model.n-layers 2 --model.expert-width 64 --train.batch 4""".split()

if importlib.util.find_spec("torch") is None:
    print("this Python has no torch")
    sys.exit(77)


def compare(text, *arguments):
    command = [sys.executable, ROOT / "scripts" / "compare_trainer.py", *arguments]
    done = subprocess.run([*command, "--bench", sys.argv[1], "--data", text, *TINY], capture_output=True, text=True)
    print(done.stdout + done.stderr)
    return done


with tempfile.TemporaryDirectory() as folder:
    text = pathlib.Path(folder) / "text.txt"
    words = random.Random(1)
    text.write_text(" ".join("".join(words.choices("etaoinshr", k=4)) for _ in range(4000)))
    for variant in ("dense", "dsa_as_published"):
        assert compare(text, "curves", "--variant", variant).returncode == 0, variant
    # Dropout draws from two unlike random streams.
    assert compare(text, "curves", "--model.dropout", "0.1").returncode == 1, "other losses went unseen"
    # What is asked for is checked before anything is trained.
    command = [sys.argv[1], "steps", "--data", text, "--variants", "dense", "--lengths", "32", "--seeds", "1", *TINY]
    for request in ("step x", "step 2 3", "step -1", "step", "start", "walk 1"):
        done = subprocess.run(command, input=request + "\n", capture_output=True, text=True, cwd=ROOT)
        assert done.returncode == 1 and f"'{request}' is no request" in done.stderr, (request, done)
