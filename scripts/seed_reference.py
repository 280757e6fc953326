"""The original experiment's model in plain PyTorch, as anyone would write it first: a loop over experts,
the logits of all tokens at once, torch's attention, cross-entropy and Adam. The peer that dsa-bench's
trainer is compared with (scripts/compare_trainer.py), written from docs/variants.md and
presets/as-published.toml.

    seed_reference.py START [THREADS] [f32|bf16|nudged]

nudged: every other weight starts one unit in its last place higher, so that losses tell what rounding alone does.
START is the file that `dsa-bench steps` writes: weights, batches and settings. Afterwards a line of
standard input is a request (`step N`, `memory`), a line of JSON an answer, as dsa-bench's own."""
import json
import os
import struct
import sys
import time
import warnings

warnings.filterwarnings("ignore", message="Failed to initialize NumPy")
import torch  # noqa: E402
from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402

TYPES = {"F32": torch.float32, "I64": torch.int64}


def read_safetensors(path):
    with open(path, "rb") as file:
        header = json.loads(file.read(struct.unpack("<Q", file.read(8))[0]))
        base, metadata, tensors = file.tell(), header.pop("__metadata__"), {}
        for name, entry in header.items():
            begin, end = entry["data_offsets"]
            file.seek(base + begin)
            data = bytearray(file.read(end - begin))
            tensors[name] = torch.frombuffer(data, dtype=TYPES[entry["dtype"]]).view(entry["shape"])
    return tensors, metadata


def rotate(x, cos, sin, layout):
    """RoPE of [B, heads, T, D]."""
    if layout == "interleaved":
        a, b = x[..., 0::2], x[..., 1::2]
        return torch.stack((a * cos - b * sin, a * sin + b * cos), -1).flatten(-2)
    a, b = x.chunk(2, -1)
    return torch.cat((a * cos - b * sin, a * sin + b * cos), -1)


class Indexer(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.heads = c["index-heads"]
        width = c["index-width"]
        self.scale = (self.heads * width) ** -0.5
        self.q = nn.Linear(c["d-model"], self.heads * width, bias=False)
        self.k = nn.Linear(c["d-model"], width, bias=False)
        self.weight = nn.Linear(c["d-model"], self.heads, bias=False)

    def forward(self, x):
        q = self.q(x).unflatten(-1, (self.heads, -1))
        products = torch.einsum("btij,bsj->btis", q, self.k(x)).relu()
        return (products * self.weight(x).unsqueeze(-1) * self.scale).sum(2)


class Attention(nn.Module):
    def __init__(self, c, sparse):
        super().__init__()
        self.c = c
        self.width = c["head-width"]
        for name in ("q", "k", "v"):
            setattr(self, name, nn.Linear(c["d-model"], c["n-heads"] * self.width, bias=False))
        self.out = nn.Linear(c["n-heads"] * self.width, c["d-model"], bias=False)
        self.indexer = Indexer(c) if sparse else None

    def forward(self, x, cos, sin):
        heads = lambda projected: projected.unflatten(-1, (-1, self.width)).transpose(1, 2)
        q, k = (rotate(heads(f(x)), cos, sin, self.c["rope-layout"]) for f in (self.q, self.k))
        mask = None
        if self.indexer:  # future keys discouraged, then the top k of the whole row: the published fault
            length = x.size(1)
            future = torch.ones(length, length).triu(1) * -1e9
            scores = self.indexer(x) + future
            top_k = self.c["top-k"] or max(1, int(length * self.c["top-k-fraction"]))
            chosen = scores.topk(top_k).indices
            mask = torch.full_like(scores, -torch.inf).scatter(-1, chosen, 0.0).unsqueeze(1)
        dropout = self.c["dropout"] if self.training else 0.0
        out = F.scaled_dot_product_attention(q, k, heads(self.v(x)), mask, dropout, mask is None)
        return self.out(out.transpose(1, 2).flatten(2))


class Expert(nn.Module):
    def __init__(self, c, m):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(c["d-model"], m["expert-width"], bias=False),
            nn.SiLU(),
            nn.Dropout(m["dropout"]),
            nn.Linear(m["expert-width"], c["d-model"], bias=False),
        )

    def forward(self, x):
        return self.layers(x)


class Experts(nn.Module):
    def __init__(self, c, m):
        super().__init__()
        self.m = m
        self.router = nn.Linear(c["d-model"], m["n-experts"], bias=False)
        self.experts = nn.ModuleList(Expert(c, m) for _ in range(m["n-experts"]))

    def forward(self, x):
        shape, x = x.shape, x.flatten(0, 1)
        logits = self.router(x)
        if self.training and self.m["router-noise"]:
            logits = logits + torch.randn_like(logits) * self.m["router-noise"]
        top, chosen = logits.topk(self.m["n-active"])
        shares = top.softmax(-1)
        out = torch.zeros_like(x)
        for number, expert in enumerate(self.experts):
            token, slot = (chosen == number).nonzero(as_tuple=True)
            if token.numel():
                out = out.index_add(0, token, (expert(x[token]) * shares[token, slot, None]).to(out))
        served = F.one_hot(chosen, self.m["n-experts"]).float().mean((0, 1))
        balance = self.m["n-experts"] * (served * logits.softmax(-1).mean(0)).sum()
        return out.view(shape), balance


class Block(nn.Module):
    def __init__(self, c, m, sparse):
        super().__init__()
        self.attention_norm = nn.RMSNorm(c["d-model"], 1e-6)
        self.attention = Attention(c, sparse)
        self.moe_norm = nn.RMSNorm(c["d-model"], 1e-6)
        self.moe = Experts(c, m)
        self.dropout = nn.Dropout(m["dropout"])

    def forward(self, x, cos, sin):
        x = x + self.dropout(self.attention(self.attention_norm(x), cos, sin))
        mixed, balance = self.moe(self.moe_norm(x))
        return x + self.dropout(mixed), balance


class Model(nn.Module):
    def __init__(self, c, m, sparse):
        super().__init__()
        self.c = c
        self.embedding = nn.Embedding(m["vocab-size"], c["d-model"])
        self.blocks = nn.ModuleList(Block(c, m, sparse) for _ in range(m["n-layers"]))
        self.norm = nn.RMSNorm(c["d-model"], 1e-6)
        self.head = nn.Linear(c["d-model"], m["vocab-size"], bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, tokens):
        width = self.c["head-width"]
        frequency = self.c["rope-base"] ** (-torch.arange(0, width, 2).double() / width)
        angle = torch.arange(tokens.size(1)).double()[:, None] * frequency
        cos, sin = angle.cos().float(), angle.sin().float()
        x, balances = self.embedding(tokens), []
        for block in self.blocks:
            x, balance = block(x, cos, sin)
            balances.append(balance)
        return self.head(self.norm(x)), torch.stack(balances).mean()


def our_name(parameter):
    """The name that dsa-bench gives to a parameter of this model."""
    name = parameter.removesuffix(".weight")
    name = name.replace("experts.", "expert").replace("layers.0", "in").replace("layers.3", "out")
    name = name.replace("blocks.", "block").replace("moe_norm", "mlp_norm.scale")
    name = name.replace("attention_norm", "attention_norm.scale")
    return "model." + ("final_norm.scale" if name == "norm" else name)


class Trainer:
    def __init__(self, start, precision="f32"):
        tensors, metadata = read_safetensors(start)
        config = json.loads(metadata["config"])
        self.tokens, self.targets = tensors["tokens"], tensors["targets"]
        self.balance_weight = config["model"]["load-balance-weight"]
        self.bf16, self.done = precision == "bf16", 0
        sparse = metadata["variant"] == "dsa_as_published"
        self.model = Model(config["attention"], config["model"], sparse)
        with torch.no_grad():
            for name, value in self.model.named_parameters():
                value.copy_(tensors[our_name(name)])
                if precision == "nudged":
                    every_other = value.view(-1)[::2]
                    every_other.copy_(torch.nextafter(every_other, torch.tensor(torch.inf)))
        self.optimizer = torch.optim.Adam(self.model.parameters(), config["train"]["learning-rate"])
        torch.manual_seed(config["seeds"][0])

    def step(self):
        begin = time.perf_counter()
        tokens, targets = self.tokens[self.done], self.targets[self.done]
        self.optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=self.bf16):
            logits, balance = self.model(tokens)
            loss = F.cross_entropy(logits.flatten(0, 1), targets.flatten())
            total = loss + self.balance_weight * balance
        total.backward()
        self.optimizer.step()
        self.done += 1
        return {"step": self.done, "loss": loss.item(), "seconds": time.perf_counter() - begin}


def status_bytes(field):
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith(field))


def main(start, threads="0", precision="f32"):
    resident_at_start = status_bytes("VmRSS")  # torch is imported
    if precision not in ("f32", "bf16", "nudged"):
        sys.exit(f"'{precision}' is no precision; choose f32, bf16 or nudged")
    torch.set_flush_denormal(True)  # before the pool starts, or only this thread would flush
    if int(threads):
        torch.set_num_threads(int(threads))
    trainer = Trainer(start, precision)
    say = lambda answer: print(json.dumps(answer), flush=True)
    count = sum(value.numel() for value in trainer.model.parameters())
    say({"ready": f"plain PyTorch {torch.__version__} {precision}", "parameters": count})
    for request in sys.stdin:
        verb, _, argument = request.strip().partition(" ")
        if verb == "memory":
            say({"peak_bytes": status_bytes("VmHWM") - resident_at_start})
        elif verb == "step":
            for _ in range(int(argument)):
                say(trainer.step())
        else:
            sys.exit(f"'{request.strip()}' is no request; they are: step N, memory")


if __name__ == "__main__":
    if len(sys.argv) < 2 or not os.path.exists(sys.argv[1]):
        sys.exit(__doc__)
    main(*sys.argv[1:])
