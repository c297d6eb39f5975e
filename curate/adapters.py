"""Which parameters are trained: all, those of name patterns, or an adapter of peft's by its name.

    lora, dora, rslora, qlora   peft's LoraConfig, with use_dora, use_rslora, or over a base in 4 bits
    adalora, ia3, loha, ...     any other peft type by its name, with its own parameters
"""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any

from curate import randomness
from curate.errors import ConfigError
from curate.models import quietly
from curate.params import did_you_mean

#: Names for settings of LoraConfig.
_LORA: dict[str, dict[str, Any]] = {"lora": {}, "dora": {"use_dora": True}, "rslora": {"use_rslora": True}, "qlora": {}}
#: Where the user names no target: every linear layer but the head, for adapters that fit all of them.
_ALL_LINEAR = ("lora", "dora", "rslora", "qlora", "adalora", "loha", "lokr", "oft", "boft", "vera", "hra")


def adapt(model: Any, method: str, parameters: dict[str, Any], *, seed: int, steps: int) -> Any:
    """Wrap a model in an adapter, whose fresh weights are drawn from the seed; only the adapter is trained.

    Raises ConfigError for a method or a parameter that peft does not know.
    """
    import peft
    import torch
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

    kinds = {kind.value.lower(): config for kind, config in PEFT_TYPE_TO_CONFIG_MAPPING.items()}
    lowered = method.lower()
    if lowered not in kinds and lowered not in _LORA:
        raise ConfigError(f"train.method: expected full or an adapter{did_you_mean(lowered, [*kinds, *_LORA, 'full'])}, got {method!r}")
    settings = {**_LORA.get(lowered, {}), **parameters}
    if lowered in _ALL_LINEAR:
        settings.setdefault("target_modules", "all-linear")
    if lowered == "adalora":  # its budget falls over the whole training: a tenth before, a third after, as in the paper
        settings.setdefault("total_step", steps)
        settings.setdefault("tinit", max(1, steps // 10))
        settings.setdefault("tfinal", max(1, steps // 3))
    kind = kinds["lora"] if lowered in _LORA else kinds[lowered]
    if issubclass(kind, peft.PromptLearningConfig):  # peft then drops the positions, and its logits have places that no label has
        raise ConfigError(f"train.method: {method} puts virtual tokens before a sequence, which is several documents here; use lora, ia3 or another adapter of weights")
    with torch.random.fork_rng(devices=[]), quietly():
        torch.manual_seed(randomness.stream(seed, "train", "adapter") & (1 << 63) - 1)
        if lowered == "qlora":  # norms and head in fp32 over weights of 4 bits, which get no gradient
            prepare: Any = peft.prepare_model_for_kbit_training
            model = prepare(model, use_gradient_checkpointing=False)
        try:
            return peft.get_peft_model(model, kind(task_type="CAUSAL_LM", **settings))
        except (TypeError, ValueError, KeyError) as error:
            raise ConfigError(f"train.adapter: peft refuses these parameters of {method}: {error}") from error


def choose(model: Any, train: Sequence[str], freeze: Sequence[str]) -> list[str]:
    """Set what is trained by name patterns; returns the names. A pattern that fits nothing is refused."""
    names = [name for name, _ in model.named_parameters()]
    for what, patterns in (("train", train), ("freeze", freeze)):
        for pattern in patterns:
            if not any(fnmatchcase(name, pattern) for name in names):
                raise ConfigError(f"train.{what}: no parameter is named like {pattern!r}; names look like {', '.join(names[1:4])}")
    for name, parameter in model.named_parameters():
        wanted = parameter.requires_grad and (not train or any(fnmatchcase(name, p) for p in train))
        parameter.requires_grad_(wanted and not any(fnmatchcase(name, p) for p in freeze))
    chosen = [name for name, p in model.named_parameters() if p.requires_grad]
    if not chosen:
        raise ConfigError("train: no parameter is left to train; change train.train and train.freeze")
    return chosen


def decays(name: str, parameter: Any) -> bool:
    """Whether weight decay is for a parameter: matrices. IA3's factors, which begin at 1, are vectors in the form of a matrix."""
    return bool(parameter.ndim >= 2) and "ia3_l" not in name


class Budget:
    """AdaLoRA's falling rank: peft's allocator after each step, the orthogonality penalty, and what of it a checkpoint keeps."""

    def __init__(self, model: Any) -> None:
        base = getattr(model, "base_model", None)
        self._tuner = base if hasattr(base, "update_and_allocate") else None
        self._model = model

    def penalty(self) -> Any:
        """The mean distance of A A' and B' B from the identity times its weight (AdaLoRA, equation 4); None for other methods."""
        import torch

        if self._tuner is None:
            return None
        weight = self._config().orth_reg_weight
        found = []
        for name, p in self._model.named_parameters():
            if "lora_A" in name or "lora_B" in name:
                square = p @ p.T if "lora_A" in name else p.T @ p
                found.append(torch.linalg.norm(square - torch.eye(len(square), device=p.device)))
        return weight * torch.stack(found).mean()

    def after(self, step: int) -> None:
        """Let the allocator move after an optimizer's step, counted from 0, with the gradients still there."""
        if self._tuner is not None:
            self._tuner.update_and_allocate(step + 1)

    def state(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Its tensors by name, and what else a checkpoint keeps."""
        if self._tuner is None:
            return {}, {}
        allocator = self._tuner.rankallocator
        tensors = {
            f"{kind}/{name}": tensor for kind in ("ipt", "exp_avg_ipt", "exp_avg_unc") for name, tensor in getattr(allocator, kind).items()
        }
        return tensors, {"rank_pattern": self._config().rank_pattern}

    def restore(self, tensors: dict[str, Any], more: dict[str, Any]) -> None:
        """Put back what `state` gave."""
        if self._tuner is None:
            return
        allocator = self._tuner.rankallocator
        for name, tensor in tensors.items():
            kind, _, parameter = name.partition("/")
            getattr(allocator, kind)[parameter] = tensor
        self._config().rank_pattern = more.get("rank_pattern")

    def _config(self) -> Any:
        assert self._tuner is not None
        return self._tuner.peft_config[self._tuner.trainable_adapter_name]
