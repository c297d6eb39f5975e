"""Causal language models: loading a Hugging Face folder, building the small one, the device and the precision, saving.

Nothing here downloads: a model is a folder on this machine, or the embedded default, whose weights are drawn from a seed.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec

from curate import randomness
from curate.errors import ConfigError, DataError
from curate.store import digest, sync, writing

#: The embedded default: Llama's architecture, 3.2 million parameters beside the embedding (8,192 words: 2.1 million, tied).
SMALL = {
    "hidden_size": 256, "intermediate_size": 688, "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 4,
    "max_position_embeddings": 2048, "tie_word_embeddings": True, "rms_norm_eps": 1e-5,
}  # fmt: skip
TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json", "vocab.txt", "merges.txt",
    "tokenizer.model", "chat_template.jinja",
)  # fmt: skip
_WEIGHTS = (".safetensors", ".bin", ".gguf")
#: Logits of a document alone and packed behind another may differ by this share of the largest logit.
TOLERANCE = 2e-3

Precision = Literal["fp32", "bf16"]


@dataclass(frozen=True)
class Device:
    """Where a model runs; `name` is the device's own, for reports."""

    kind: Literal["cpu", "cuda"]
    torch: Any
    name: str


def choose_device(asked: str = "auto", local_rank: int = 0) -> Device:
    """The CUDA device of this process where there is one, otherwise the processor. ConfigError where CUDA is asked for and not there."""
    import torch

    available = torch.cuda.is_available()
    if asked == "cuda" and not available:
        raise ConfigError("device: expected a CUDA device, found none that torch can use; write device: cpu, or install a CUDA build of torch")
    if asked != "cpu" and available:
        torch.cuda.set_device(local_rank)
        return Device("cuda", torch.device("cuda", local_rank), torch.cuda.get_device_name(local_rank))
    return Device("cpu", torch.device("cpu"), _processor())


def _processor() -> str:
    import platform

    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def autocast(device: Device, precision: Precision) -> AbstractContextManager[Any]:
    """The context that a forward pass runs in: bf16 products over weights kept in fp32, or nothing."""
    import torch

    return torch.autocast(device.kind, torch.bfloat16) if precision == "bf16" else nullcontext()


def choose_precision(model: Any, device: Device, places: int, rows: int = 1) -> Precision:
    """The quicker of fp32 and bf16 autocast by one forward and backward pass of each on this device; on CUDA bf16 where it has it.

    A processor's bf16 may be ten times slower or twice as fast, which its name does not tell. The gradients are thrown away.
    """
    import torch

    if device.kind == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported() else "fp32"
    ids = torch.zeros((rows, places), dtype=torch.long)
    taken: dict[Precision, float] = {}
    candidates: tuple[Precision, ...] = ("fp32", "bf16")
    for precision in candidates:
        for _ in range(2):  # the first pass of each also warms up
            started = time.perf_counter()
            with autocast(device, precision):
                loss = model(input_ids=ids, use_cache=False).logits.float().logsumexp(-1).mean()
            loss.backward()
            model.zero_grad(set_to_none=True)
            taken[precision] = time.perf_counter() - started
    return min(candidates, key=lambda p: taken[p])


@contextmanager
def quietly() -> Iterator[None]:
    """Without the bars that transformers draws on standard error, and what it says to peft of an attribute's old name."""
    import warnings

    from transformers import utils

    logging: Any = utils.logging
    drawn = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
            yield
    finally:
        if drawn:
            logging.enable_progress_bar()


def load_tokenizer(folder: Path | str) -> Any:
    """The tokenizer of a folder."""
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
    except (OSError, ValueError, KeyError, json.JSONDecodeError) as error:
        raise ConfigError(f"{folder}: expected a folder with a tokenizer, got: {str(error).splitlines()[0]}") from error


def tokenizer_fingerprint(folder: Path | str) -> str:
    """What a tokenizer does, as 32 hex digits: the ids of its tokens, its rules, and its special tokens; not how its files are written."""
    tokenizer = load_tokenizer(folder)
    rules: Any = None
    if getattr(tokenizer, "backend_tokenizer", None) is not None:
        rules = json.loads(tokenizer.backend_tokenizer.to_str())
        rules.pop("truncation", None)
        rules.pop("padding", None)
    special = {name: str(value) for name, value in tokenizer.special_tokens_map.items()}
    return digest("tokenizer", sorted(tokenizer.get_vocab().items()), rules, special)


def fingerprint(folder: Path | str) -> str:
    """The hash of a model folder's configuration, weights and tokenizer, 32 hex digits; neither its place nor its times.

    Of an adapter's folder that of its base is in it.
    """
    folder = Path(folder)
    files = sorted(p for p in folder.iterdir() if p.suffix in _WEIGHTS or p.name in TOKENIZER_FILES or p.name.endswith("config.json"))
    found = hashlib.blake2b(digest_size=16)
    for file in files:
        with open(file, "rb") as stream:
            content = hashlib.file_digest(stream, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
        found.update(f"{file.name}:{content};".encode())
    adapter = folder / "adapter_config.json"
    if adapter.is_file():  # what it predicts is its base's too
        base = Path(json.loads(adapter.read_bytes()).get("base_model_name_or_path") or "")
        if base.name and base.is_dir():
            found.update(f"base:{fingerprint(base)};".encode())
    return found.hexdigest()


@dataclass(frozen=True)
class Loaded:
    """A model and what it is; `source` is its folder, or None where it was built."""

    model: Any
    source: Path | None
    fingerprint: str


def load_model(
    folder: Path | str, *, dtype: str = "float32", attention: str = "sdpa", quantize: bool = False, adapter: bool = True
) -> Loaded:  # fmt: skip
    """The model of a Hugging Face folder, on the processor, in eval mode; an adapter's folder with its base under it.

    `quantize` loads it in 4 bits (nf4), for which bitsandbytes and a CUDA device must be there.
    """
    import torch
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM

    folder = Path(folder)
    adapted = (folder / "adapter_config.json").is_file()
    if not folder.is_dir() or not ((folder / "config.json").is_file() or adapted):
        raise ConfigError(f"model: expected a Hugging Face folder with a config.json, got {folder}; nothing is downloaded: fetch the model first")
    more: dict[str, Any] = {"quantization_config": _four_bits(), "device_map": {"": torch.cuda.current_device()}} if quantize else {}
    try:
        if adapted and adapter:
            from peft import AutoPeftModelForCausalLM

            kind: Any = AutoPeftModelForCausalLM
        else:
            kind = AutoModelForCausalLM
        with quietly():
            model = kind.from_pretrained(
                str(folder), dtype=getattr(torch, dtype), attn_implementation=attention, local_files_only=True, **more
            )
    except (OSError, ValueError, ImportError, KeyError, SafetensorError) as error:
        raise DataError(f"{folder}: this model could not be loaded: {str(error).splitlines()[0]}") from error
    return Loaded(model.eval(), folder, fingerprint(folder))


def _four_bits() -> Any:
    import importlib.util

    import torch

    if importlib.util.find_spec("bitsandbytes") is None or not torch.cuda.is_available():
        raise ConfigError("method qlora: expected bitsandbytes and a CUDA device, which are not both here; use method: lora")
    from transformers import BitsAndBytesConfig

    config: Any = BitsAndBytesConfig
    return config(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=torch.bfloat16)


def build_model(
    vocab_size: int, *, seed: int, config: dict[str, Any] | None = None, folder: Path | str | None = None, attention: str = "sdpa",
    bos: int | None = None, eos: int | None = None,
) -> Loaded:  # fmt: skip
    """A model with fresh weights, drawn from the seed: the embedded default, or one of the configuration in `folder`.

    `config` overrides settings of the configuration; one that it does not have is refused.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, LlamaConfig

    given = dict(config or {})
    settings: Any
    causal: Any = AutoModelForCausalLM
    if folder is None:
        small: dict[str, Any] = {**SMALL, "vocab_size": vocab_size, "bos_token_id": bos, "eos_token_id": eos, "pad_token_id": None}
        settings = LlamaConfig(**small)
    else:
        settings = AutoConfig.from_pretrained(str(folder), local_files_only=True)
    for name, value in given.items():
        if not hasattr(settings, name):
            raise ConfigError(f"train.config.{name}: the configuration {type(settings).__name__} has no such setting")
        setattr(settings, name, value)
    if folder is None and "num_key_value_heads" not in given:
        settings.num_key_value_heads = settings.num_attention_heads
    if folder is None:
        settings.head_dim = given.get("head_dim", settings.hidden_size // settings.num_attention_heads)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(randomness.stream(seed, "train", "weights") & (1 << 63) - 1)
        model = causal.from_config(settings, dtype=torch.float32, attn_implementation=attention)
    told = {k: v for k, v in settings.to_dict().items() if k not in ("transformers_version", "_name_or_path")}
    return Loaded(model.eval(), None, digest("fresh", seed, json.dumps(told, sort_keys=True, default=str)))


def context_of(model: Any) -> int | None:
    """The longest sequence that a model takes; None where its configuration does not say."""
    value = getattr(model.config, "max_position_embeddings", None)
    return int(value) if isinstance(value, int) and value > 0 else None


@contextmanager
def on_processor(model: Any) -> Iterator[None]:
    """With an attention that a processor has: flash attention is for CUDA alone, and the model is there later."""
    flash = getattr(model.config, "_attn_implementation", None) == "flash_attention_2"
    if flash:
        model.set_attn_implementation("sdpa")
    try:
        yield
    finally:
        if flash:
            model.set_attn_implementation("flash_attention_2")


def crossing(model: Any, vocab_size: int) -> float:
    """How far a packed document's logits are from those of the document alone, over the largest logit.

    Two documents of random tokens in one sequence, with positions that begin again: 0 up to rounding for a model that keeps
    them apart, of the order of 1 for one that does not know of boundaries (recurrent models, attention of its own).
    """
    import torch

    generator = torch.Generator().manual_seed(7)
    device = next(model.parameters()).device
    first, second = (torch.randint(0, vocab_size, (n,), generator=generator) for n in (7, 9))
    ids = torch.cat([first, second])[None].to(device)
    positions = torch.cat([torch.arange(7), torch.arange(9)])[None].to(device)
    training = model.training
    model.eval()
    with torch.no_grad():
        together = model(input_ids=ids, position_ids=positions, use_cache=False).logits[0, 7:].float()
        alone = model(input_ids=ids[:, 7:], position_ids=positions[:, 7:], use_cache=False).logits[0].float()
    model.train(training)
    return float((together - alone).abs().max() / alone.abs().max().clamp_min(1e-9))


def save_model(model: Any, folder: Path, *, tokenizer: Path | None, manifest: dict[str, Any], staging: Path) -> Path:
    """Write an ordinary Hugging Face folder with tokenizer and manifest under a staging name and rename it; returns `folder`."""
    making = staging / folder.name
    shutil.rmtree(making, ignore_errors=True)
    with writing(folder), quietly():
        model.save_pretrained(str(making), safe_serialization=True)
        (making / "README.md").unlink(missing_ok=True)  # peft's card is a form to fill in
        for name in TOKENIZER_FILES:
            if tokenizer is not None and (tokenizer / name).is_file():
                shutil.copyfile(tokenizer / name, making / name)
        hashes = {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(making.iterdir())}
        content = msgspec.json.format(msgspec.json.encode({**manifest, "files": hashes}), indent=1)
        (making / "manifest.json").write_bytes(content + b"\n")
        for path in [*sorted(making.rglob("*")), making]:
            sync(path)
        shutil.rmtree(folder, ignore_errors=True)
        making.rename(folder)
        sync(folder.parent)
    return folder


def damage(folder: Path) -> str | None:
    """What is wrong with a folder that `save_model` wrote; None where every file has the SHA-256 of the manifest."""
    try:
        files = msgspec.json.decode((folder / "manifest.json").read_bytes())["files"]
        wanted = {str(name): str(value) for name, value in files.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, msgspec.MsgspecError) as error:
        return f"{folder / 'manifest.json'} cannot be read ({error})"
    for name, value in wanted.items():
        try:
            with open(folder / name, "rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
        except FileNotFoundError:
            return f"{folder / name} is missing"
        if found != value:
            return f"{folder / name} does not have the hash of its manifest"
    return None
