"""MiniLM, a real sentence encoder: its published weights in the six BERT layers that they were trained in.

Sources: the weights' own config.json, and the BERT paper (post-norm encoder, learnt positions, exact GELU).
"""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: pip install 'naiad[torch]'")
WIDTH, HEADS, LAYERS, EPSILON = 384, 12, 6, 1e-12


class Layer(torch.nn.Module):
    """Attention and feed-forward, each with its residual and norm."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value, self.mixed = (torch.nn.Linear(WIDTH, WIDTH) for _ in range(4))
        self.wide, self.narrow = torch.nn.Linear(WIDTH, 4 * WIDTH), torch.nn.Linear(4 * WIDTH, WIDTH)
        self.first, self.second = (torch.nn.LayerNorm(WIDTH, EPSILON) for _ in range(2))

    def forward(self, hidden: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        query, key, value = (
            part(hidden).unflatten(-1, (HEADS, WIDTH // HEADS)).transpose(1, 2)
            for part in (self.query, self.key, self.value)
        )
        weights = torch.softmax(query @ key.transpose(2, 3) / (WIDTH // HEADS) ** 0.5 + bias, dim=-1)
        hidden = self.first(hidden + self.mixed((weights @ value).transpose(1, 2).flatten(2)))
        return self.second(hidden + self.narrow(torch.nn.functional.gelu(self.wide(hidden))))


class MiniLM(torch.nn.Module):
    """Token ids and mask [N,T] to unit vectors [N,384]: the mean over the tokens that count."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.places = torch.nn.Embedding(30522, WIDTH), torch.nn.Embedding(512, WIDTH)
        self.kinds = torch.nn.Embedding(2, WIDTH)
        self.norm = torch.nn.LayerNorm(WIDTH, EPSILON)
        self.layers = torch.nn.ModuleList(Layer() for _ in range(LAYERS))

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        places = torch.arange(input_ids.shape[1], device=input_ids.device)
        hidden = self.norm(self.words(input_ids) + self.places(places) + self.kinds.weight[0])
        mask = attention_mask.to(hidden.dtype)
        for layer in self.layers:
            hidden = layer(hidden, (1 - mask)[:, None, None, :] * -1e9)
        summed = (hidden * mask[:, :, None]).sum(1)
        return torch.nn.functional.normalize(summed / mask.sum(1, keepdim=True).clamp(min=1e-9))


_NAMES = {
    "attention.self.query": "query",
    "attention.self.key": "key",
    "attention.self.value": "value",
    "attention.output.dense": "mixed",
    "attention.output.LayerNorm": "first",
    "intermediate.dense": "wide",
    "output.dense": "narrow",
    "output.LayerNorm": "second",
}


def _ours(name: str) -> str:
    """Where a published weight belongs; "" for those that this encoder does not use."""
    part, _, kind = name.rpartition(".")
    fixed = {
        "embeddings.word_embeddings": "words",
        "embeddings.position_embeddings": "places",
        "embeddings.token_type_embeddings": "kinds",
        "embeddings.LayerNorm": "norm",
    }
    if part in fixed:
        return f"{fixed[part]}.{kind}"
    if part.startswith("encoder.layer."):
        number, _, inner = part.removeprefix("encoder.layer.").partition(".")
        return f"layers.{number}.{_NAMES[inner]}.{kind}"
    return ""


def load(weights: Path) -> MiniLM:
    """The model with the weights of a safetensors file (its specification: a length, a JSON header, the tensors)."""
    raw = weights.read_bytes()
    (length,) = struct.unpack_from("<Q", raw)
    header = json.loads(raw[8 : 8 + length])
    state = {}
    for name, entry in header.items():
        ours = _ours(name) if name != "__metadata__" else ""
        if ours:
            begin, end = (8 + length + offset for offset in entry["data_offsets"])
            array = np.frombuffer(raw[begin:end], np.float32).reshape(entry["shape"])
            state[ours] = torch.from_numpy(array.copy())
    model = MiniLM()
    model.load_state_dict(state)
    return model.eval()


def tokens(vocabulary: Path, sentences: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Ids and mask of sentences whose words are all in the vocabulary as they are."""
    number = {word: place for place, word in enumerate(vocabulary.read_text("utf-8").splitlines())}
    rows = [[number[word] for word in ("[CLS]", *sentence.split(), "[SEP]")] for sentence in sentences]
    longest = max(map(len, rows))
    ids = np.array([row + [0] * (longest - len(row)) for row in rows], np.int64)
    return ids, np.array([[1] * len(row) + [0] * (longest - len(row)) for row in rows], np.int64)
