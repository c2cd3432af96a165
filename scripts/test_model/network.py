"""Whisper's network at its smallest, with transformers' parameter names, for windows of any length.

transformers' own encoder insists on windows of 30 s, which would make the training ten times as long. What is learnt
here is loaded there for the conversion.
"""

from __future__ import annotations

import dataclasses
import math

import torch
from torch import Tensor, nn
from torch.nn import functional

MELS, FRAMES, LENGTH = 80, 1500, 448
"""Whisper's: mel bands, encoder positions of 20 ms, decoder positions."""


@dataclasses.dataclass(frozen=True)
class Shape:
    """Sizes of the network, and how many things the helpers of the training tell apart."""

    tokens: int
    first_time: int
    """The token <|0.00|>."""
    phones: int
    words: int
    width: int = 96
    heads: int = 3
    wide: int = 288
    layers: int = 3


class Attention(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.heads = shape.heads
        self.k_proj = nn.Linear(shape.width, shape.width, bias=False)
        self.v_proj = nn.Linear(shape.width, shape.width)
        self.q_proj = nn.Linear(shape.width, shape.width)
        self.out_proj = nn.Linear(shape.width, shape.width)

    def forward(self, x: Tensor, *, causal: bool) -> Tensor:
        """Attend to ``x`` itself."""
        found = functional.scaled_dot_product_attention(
            self._split(self.q_proj(x)), self._split(self.k_proj(x)), self._split(self.v_proj(x)), is_causal=causal
        )
        return self._join(found)

    def look(self, x: Tensor, source: Tensor) -> tuple[Tensor, Tensor]:
        """Attend to ``source``; return also the logarithm of where, (batch, heads, x, source)."""
        queries, keys = self._split(self.q_proj(x)), self._split(self.k_proj(source))
        where = (queries @ keys.transpose(-1, -2) / math.sqrt(queries.shape[-1])).log_softmax(-1)
        return self._join(where.exp() @ self._split(self.v_proj(source))), where

    def _split(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:2], self.heads, -1).transpose(1, 2)

    def _join(self, x: Tensor) -> Tensor:
        joined: Tensor = self.out_proj(x.transpose(1, 2).flatten(2))
        return joined


class EncoderLayer(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.self_attn = Attention(shape)
        self.self_attn_layer_norm = nn.LayerNorm(shape.width)
        self.fc1 = nn.Linear(shape.width, shape.wide)
        self.fc2 = nn.Linear(shape.wide, shape.width)
        self.final_layer_norm = nn.LayerNorm(shape.width)

    def forward(self, x: Tensor) -> Tensor:
        return self.think(x + self.self_attn(self.self_attn_layer_norm(x), causal=False))

    def think(self, x: Tensor) -> Tensor:
        added: Tensor = self.fc2(functional.gelu(self.fc1(self.final_layer_norm(x))))
        return x + added


class DecoderLayer(EncoderLayer):
    def __init__(self, shape: Shape) -> None:
        super().__init__(shape)
        self.encoder_attn = Attention(shape)
        self.encoder_attn_layer_norm = nn.LayerNorm(shape.width)

    def decode(self, x: Tensor, heard: Tensor) -> tuple[Tensor, Tensor]:
        x = x + self.self_attn(self.self_attn_layer_norm(x), causal=True)
        added, where = self.encoder_attn.look(self.encoder_attn_layer_norm(x), heard)
        return self.think(x + added), where


class Encoder(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.conv1 = nn.Conv1d(MELS, shape.width, 3, padding=1)
        self.conv2 = nn.Conv1d(shape.width, shape.width, 3, stride=2, padding=1)
        self.embed_positions = nn.Embedding(FRAMES, shape.width, _weight=sinusoids(FRAMES, shape.width), _freeze=True)
        self.layers = nn.ModuleList(EncoderLayer(shape) for _ in range(shape.layers))
        self.layer_norm = nn.LayerNorm(shape.width)
        for layer, shifts in zip(self.layers, SHIFTS, strict=True):
            _look_around(layer.self_attn, shifts)  # type: ignore[arg-type]

    def forward(self, features: Tensor, offsets: Tensor) -> tuple[Tensor, Tensor]:
        """Hear (batch, 80, 2n) features, each as if it began at a position; return the last and the first layer's."""
        x = functional.gelu(self.conv2(functional.gelu(self.conv1(features)))).transpose(1, 2)
        x = x + self.embed_positions(offsets[:, None] + torch.arange(x.shape[1]))
        first = x = self.layers[0](x)
        for layer in self.layers[1:]:
            x = layer(x)
        return self.layer_norm(x), first


class Decoder(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(shape.tokens, shape.width)
        self.embed_positions = nn.Embedding(LENGTH, shape.width)
        self.layers = nn.ModuleList(DecoderLayer(shape) for _ in range(shape.layers))
        self.layer_norm = nn.LayerNorm(shape.width)
        with torch.no_grad():
            self.embed_tokens.weight.normal_(0, 0.05)
            # 1,501 tokens of time are each seen too rarely: let them begin as what the encoder's positions look like
            self.embed_tokens.weight[shape.first_time :] = 0.07 * sinusoids(FRAMES + 1, shape.width)
            self.embed_positions.weight.copy_(0.02 * sinusoids(LENGTH, shape.width))

    def forward(self, tokens: Tensor, heard: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return what follows each token, before the projection, and where each layer looked."""
        x = self.embed_tokens(tokens) + self.embed_positions.weight[: tokens.shape[1]]
        where = []
        for layer in self.layers:
            x, looked = layer.decode(x, heard)  # type: ignore[operator]
            where.append(looked)
        return self.layer_norm(x), where

    def scores(self, x: Tensor) -> Tensor:
        """Scores of all tokens: the projection is the embedding itself."""
        return functional.linear(x, self.embed_tokens.weight)


class Network(nn.Module):
    """Encoder and decoder, and three readers of the encoder that only the training has."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.encoder = Encoder(shape)
        self.decoder = Decoder(shape)
        self.reads_phone = nn.Linear(shape.width, shape.phones)
        self.reads_word = nn.Linear(shape.width, shape.words)
        self.reads_previous = nn.Linear(shape.width, shape.words)


def sinusoids(length: int, width: int) -> Tensor:
    """Whisper's positions: sines, then cosines, of wavelengths from 2π to 20,000π."""
    speeds = torch.exp(-math.log(10_000) / (width // 2 - 1) * torch.arange(width // 2))
    angles = torch.arange(length)[:, None] * speeds[None]
    return torch.cat([angles.sin(), angles.cos()], 1)


SHIFTS = ((-5, 0, 5), (-10, 0, 10), (-18, 0, 18))
"""Positions of 20 ms to the side that each head of an encoder layer looks at to begin with."""
SHARPNESS = 2.0


def _look_around(attention: Attention, shifts: tuple[int, ...]) -> None:
    """Have head h look at position t + shifts[h]: left alone, so small a network does not learn where it is.

    A query that is the key's sinusoid turned by the angle of the shift fits best there.
    """
    width = attention.q_proj.in_features
    half, size = width // 2, width // attention.heads
    speeds = torch.exp(-math.log(10_000) / (half - 1) * torch.arange(half))
    with torch.no_grad():
        queries = attention.q_proj.weight.normal_(0, 0.02).view(attention.heads, size, width)
        keys = attention.k_proj.weight.normal_(0, 0.02).view(attention.heads, size, width)
        attention.q_proj.bias.zero_()
        for head, shift in enumerate(shifts):
            for n in range(size // 2):
                sine, cosine = math.sqrt(SHARPNESS) * torch.stack(
                    [(speeds[n] * shift).sin(), (speeds[n] * shift).cos()]
                )
                keys[head, 2 * n, n] += math.sqrt(SHARPNESS)
                keys[head, 2 * n + 1, half + n] += math.sqrt(SHARPNESS)
                queries[head, 2 * n, n] += cosine
                queries[head, 2 * n, half + n] += sine
                queries[head, 2 * n + 1, half + n] += cosine
                queries[head, 2 * n + 1, n] -= sine
