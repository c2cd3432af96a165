"""A Whisper of random weights in CTranslate2's form: it hears nothing, and every line of code that runs one runs."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
from tokenizers import decoders, models, pre_tokenizers

from omi_edge.models.archive import take_folder
from omi_edge.models.shelf import Shelf

NAME = "tiny-random"
FILES = ("config.json", "model.bin", "tokenizer.json", "vocabulary.json")
MANIFEST = "\n".join(
    [
        f'[[model]]\nname = "{NAME}"\nkind = "asr"\nformat = "ctranslate2"\nrepository = "own/{NAME}"',
        'good_for = "Tests."\nlicence = "MIT"',
        *(f'[[model.files]]\nname = "{name}"' for name in FILES),
    ]
)
WIDTH, HEADS, WIDE, MELS, FRAMES, LENGTH = 64, 2, 64, 80, 1500, 448
SPECIAL = (
    "<|endoftext|>", "<|startoftranscript|>", "<|en|>", "<|translate|>", "<|transcribe|>", "<|startoflm|>",
    "<|startofprev|>", "<|nospeech|>", "<|notimestamps|>", *(f"<|{n / 50:.2f}|>" for n in range(1501)),
)  # fmt: skip


def shelved(folder: Path) -> Shelf:
    """Install the model in a new models folder, as `omi-edge models import --as` does."""
    source = folder.with_name(folder.name + "-source")
    source.mkdir(parents=True)
    _write(source)
    folder.mkdir()
    (folder / "models.toml").write_text(MANIFEST, encoding="utf-8")
    shelf = Shelf(folder)
    take_folder(shelf, NAME, source)
    return shelf


def _write(folder: Path) -> None:
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = tokenizers.Tokenizer(models.BPE({letter: n for n, letter in enumerate(letters)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(SPECIAL))
    tokenizer.save(str(folder / "tokenizer.json"))
    spec = _spec(np.random.default_rng(7), len(letters) + len(SPECIAL))
    spec.config.suppress_ids = []
    spec.config.suppress_ids_begin = [letters.index("Ġ"), len(letters)]
    spec.config.lang_ids = [len(letters) + 2]
    spec.config.alignment_heads = [(0, 0), (0, 1)]
    spec.register_vocabulary([*letters, *SPECIAL])
    spec.validate()
    spec.save(str(folder))


def _spec(rng: np.random.Generator, words: int) -> Any:
    spec = importlib.import_module("ctranslate2.specs").WhisperSpec(1, HEADS, 1, HEADS)

    def drawn(*shape: int) -> np.ndarray[Any, np.dtype[np.float32]]:
        return rng.normal(0, 0.3, shape).astype(np.float32)

    def linear(layer: Any, out: int, into: int) -> None:
        layer.weight, layer.bias = drawn(out, into), drawn(out)

    def norm(layer: Any) -> None:
        layer.gamma, layer.beta = np.ones(WIDTH, np.float32), np.zeros(WIDTH, np.float32)

    def block(layer: Any) -> None:
        linear(layer.self_attention.linear[0], 3 * WIDTH, WIDTH)
        linear(layer.self_attention.linear[1], WIDTH, WIDTH)
        norm(layer.self_attention.layer_norm)
        linear(layer.ffn.linear_0, WIDE, WIDTH)
        linear(layer.ffn.linear_1, WIDTH, WIDE)
        norm(layer.ffn.layer_norm)

    for convolution, into in ((spec.encoder.conv1, MELS), (spec.encoder.conv2, WIDTH)):
        convolution.weight, convolution.bias = drawn(WIDTH, into, 3), drawn(WIDTH)
    spec.encoder.position_encodings.encodings = drawn(FRAMES, WIDTH)
    norm(spec.encoder.layer_norm)
    block(spec.encoder.layer[0])
    decoder = spec.decoder
    decoder.embeddings.weight = drawn(words, WIDTH)
    decoder.projection.weight = decoder.embeddings.weight
    decoder.position_encodings.encodings = drawn(LENGTH, WIDTH)
    norm(decoder.layer_norm)
    block(decoder.layer[0])
    linear(decoder.layer[0].attention.linear[0], WIDTH, WIDTH)
    linear(decoder.layer[0].attention.linear[1], 2 * WIDTH, WIDTH)
    linear(decoder.layer[0].attention.linear[2], WIDTH, WIDTH)
    norm(decoder.layer[0].attention.layer_norm)
    return spec
