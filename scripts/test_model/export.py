"""From the training's checkpoint to the files that faster-whisper loads."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from ctranslate2.converters.transformers import WhisperLoader
from transformers import GenerationConfig, WhisperConfig, WhisperForConditionalGeneration

from scripts.test_model.batches import END, NO_TIMES, START, TOKENS
from scripts.test_model.network import FRAMES, LENGTH, MELS, Network
from scripts.test_model.training import GUIDED_HEADS, shape
from scripts.test_model.vocabulary import SPACE, tokenizer

LARGEST = 3_000_000
"""Bytes of the whole folder."""
PREPROCESSOR = {"feature_size": MELS, "sampling_rate": 16_000, "hop_length": 160, "chunk_length": 30, "n_fft": 400}


def export(checkpoint: Path, folder: Path) -> None:
    """Write the model with 8-bit weights into ``folder``, replacing what is there."""
    network = Network(shape())
    network.load_state_dict(torch.load(checkpoint)["network"])
    whisper = _as_transformers(network)
    _check_equal(network.eval(), whisper)
    loader = WhisperLoader()
    spec = loader.get_model_spec(whisper)
    loader.set_config(spec.config, whisper, None)
    texts = tokenizer()
    spec.register_vocabulary([texts.id_to_token(number) for number in range(texts.get_vocab_size())])
    spec.validate()
    spec.optimize(quantization="int8")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    spec.save(str(folder))
    texts.save(str(folder / "tokenizer.json"), pretty=False)
    (folder / "preprocessor_config.json").write_text(json.dumps(PREPROCESSOR, indent=2) + "\n", encoding="utf-8")
    size = sum(path.stat().st_size for path in folder.iterdir())
    print(f"{folder}: {size} bytes")
    assert size <= LARGEST


def _as_transformers(network: Network) -> Any:
    sizes = shape()
    width, layers, heads, wide = sizes.width, sizes.layers, sizes.heads, sizes.wide
    config = WhisperConfig(
        vocab_size=len(TOKENS), num_mel_bins=MELS, d_model=width, encoder_layers=layers, decoder_layers=layers,
        encoder_attention_heads=heads, decoder_attention_heads=heads, encoder_ffn_dim=wide, decoder_ffn_dim=wide,
        max_source_positions=FRAMES, max_target_positions=LENGTH, pad_token_id=END, bos_token_id=END, eos_token_id=END,
        decoder_start_token_id=START, suppress_tokens=None, begin_suppress_tokens=None,
    )  # fmt: skip
    whisper: Any = WhisperForConditionalGeneration(config)
    whisper.eval()
    learnt = {f"model.{name}": value for name, value in network.state_dict().items() if not name.startswith("reads_")}
    missing, unknown = whisper.load_state_dict(learnt, strict=False)
    assert missing in ([], ["proj_out.weight"]), missing
    assert not unknown, unknown
    whisper.tie_weights()
    whisper.generation_config = GenerationConfig(  # type: ignore[no-untyped-call]
        suppress_tokens=[],
        begin_suppress_tokens=[TOKENS[SPACE], END],
        alignment_heads=[[layers - 1, head] for head in range(GUIDED_HEADS)],
        lang_to_id={"<|en|>": TOKENS["<|en|>"]},
    )
    return whisper


@torch.no_grad()
def _check_equal(network: Network, whisper: Any) -> None:
    features = 0.3 * torch.randn(1, MELS, 2 * FRAMES, generator=torch.Generator().manual_seed(1))
    tokens = torch.tensor([[START, NO_TIMES, TOKENS[SPACE + "Anna"]]])
    heard, _ = network.encoder(features, torch.zeros(1, dtype=torch.long))
    ours = network.decoder.scores(network.decoder(tokens, heard)[0])
    theirs = whisper(input_features=features, decoder_input_ids=tokens).logits
    assert torch.allclose(ours, theirs, atol=1e-3), (ours - theirs).abs().max()
