"""Models: the embedded default, folders, fingerprints, devices, and whether documents are kept apart."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from tiny_training import TINY, WORDS, saved, tokenizer

from curate import models
from curate.errors import ConfigError, DataError


def test_the_embedded_default_is_a_small_llama_with_a_tied_head() -> None:
    model = models.build_model(8192, seed=0).model
    assert model.config.model_type == "llama"
    # by hand: a layer has 4 x 256 x 256 of attention, 3 x 256 x 688 of MLP and 2 norms of 256
    layer = 4 * 256 * 256 + 3 * 256 * 688 + 2 * 256
    assert sum(p.numel() for p in model.parameters()) == 8192 * 256 + 4 * layer + 256
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight


def test_fresh_weights_are_of_the_seed_and_leave_the_callers_randomness_alone() -> None:
    torch.manual_seed(1)
    expected = torch.rand(1)
    torch.manual_seed(1)
    one, same, other = (models.build_model(WORDS, seed=s, config=TINY) for s in (4, 4, 5))
    assert torch.equal(torch.rand(1), expected)
    assert all(torch.equal(a, b) for a, b in zip(one.model.parameters(), same.model.parameters(), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(one.model.parameters(), other.model.parameters(), strict=True))
    assert one.fingerprint == same.fingerprint != other.fingerprint


def test_a_setting_that_the_configuration_does_not_have_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"train\.config\.hidden: the configuration LlamaConfig has no such setting"):
        models.build_model(WORDS, seed=0, config={"hidden": 3})


def test_a_folder_is_loaded_as_it_was_saved(tmp_path: Path) -> None:
    folder = saved(tmp_path)
    before = models.build_model(WORDS, seed=0, config=TINY).model.state_dict()
    loaded = models.load_model(folder)
    assert all(torch.equal(value, before[name]) for name, value in loaded.model.state_dict().items())
    assert not loaded.model.training
    assert models.load_model(folder, dtype="bfloat16").model.dtype == torch.bfloat16
    files = msgspec.json.decode((folder / "manifest.json").read_bytes())["files"]
    assert {"config.json", "model.safetensors"} <= files.keys()


def test_a_fingerprint_is_of_the_content_and_not_of_the_place(tmp_path: Path) -> None:
    folder = saved(tmp_path)
    copy = shutil.copytree(folder, tmp_path / "copy")
    assert models.fingerprint(copy) == models.fingerprint(folder)
    (copy / "notes.txt").write_text("not the model")
    assert models.fingerprint(copy) == models.fingerprint(folder)
    weights = bytearray((copy / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (copy / "model.safetensors").write_bytes(weights)
    assert models.fingerprint(copy) != models.fingerprint(folder)
    assert models.fingerprint(saved(tmp_path / "other", seed=1)) != models.fingerprint(folder)


def test_what_is_no_model_is_refused_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nothing is downloaded"):
        models.load_model("meta-llama/Llama-3")
    folder = saved(tmp_path)
    (folder / "model.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0garbage!")
    with pytest.raises((DataError, ConfigError), match="could not be loaded"):
        models.load_model(folder)


def test_four_bits_need_bitsandbytes_and_cuda(tmp_path: Path) -> None:
    folder = saved(tmp_path)
    if torch.cuda.is_available():  # then it is only the package that may be missing
        return
    with pytest.raises(ConfigError, match="expected bitsandbytes and a CUDA device"):
        models.load_model(folder, quantize=True)
    with pytest.raises(ConfigError, match="expected a CUDA device, found none"):
        models.choose_device("cuda")


def test_a_llama_and_a_gpt2_keep_packed_documents_apart() -> None:
    assert models.crossing(models.build_model(WORDS, seed=0, config=TINY).model, WORDS) < 1e-5
    from transformers import GPT2Config, GPT2LMHeadModel

    gpt2 = GPT2LMHeadModel(GPT2Config(vocab_size=WORDS, n_embd=32, n_layer=2, n_head=2, n_positions=64))
    assert models.crossing(gpt2, WORDS) < 1e-5


def test_a_model_that_looks_across_a_boundary_is_seen() -> None:
    class Forgetful(torch.nn.Module):
        """Sums all that stood before, whatever the positions say."""

        def __init__(self) -> None:
            super().__init__()
            self.embed = torch.nn.Embedding(WORDS, 16)

        def forward(self, input_ids: Any, **_: Any) -> Any:
            class Out:
                logits = self.embed(input_ids).cumsum(1) @ self.embed.weight.T

            return Out

    assert models.crossing(Forgetful(), WORDS) > 0.1


def test_sliding_windows_are_kept_inside_a_document() -> None:
    from transformers import MistralConfig, MistralForCausalLM

    config = MistralConfig(
        vocab_size=WORDS, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2, intermediate_size=48, sliding_window=4
    )
    assert models.crossing(MistralForCausalLM(config).eval(), WORDS) < 1e-5


def test_a_tokenizers_fingerprint_is_of_what_it_does(tmp_path: Path) -> None:
    one = tokenizer(tmp_path / "one", ["?", "a", "b"])
    rewritten = shutil.copytree(one, tmp_path / "copy")
    content = msgspec.json.decode((rewritten / "tokenizer.json").read_bytes())
    (rewritten / "tokenizer.json").write_bytes(msgspec.json.format(msgspec.json.encode(content), indent=3))
    assert models.tokenizer_fingerprint(rewritten) == models.tokenizer_fingerprint(one)
    assert models.tokenizer_fingerprint(tokenizer(tmp_path / "two", ["?", "b", "a"])) != models.tokenizer_fingerprint(one)
    with pytest.raises(ConfigError, match="expected a folder with a tokenizer"):
        models.tokenizer_fingerprint(tmp_path)


def test_the_precision_tried_on_a_processor_is_one_of_two_and_leaves_no_gradient() -> None:
    model = models.build_model(WORDS, seed=0, config=TINY).model
    assert models.choose_precision(model, models.choose_device("cpu"), 16) in ("fp32", "bf16")
    assert all(p.grad is None for p in model.parameters())
