"""Model FLOPs and their share of what a device can do (MFU), with every convention written down.

    one token's training = 6 N + 6 L d T      (PaLM, appendix B; the causal half of 12 L d T)

N counts each parameter that is multiplied: a head tied to the embedding once, an untied input embedding (a look-up) not at all.
T is the mean length of the context that a token has in its own document: what attention must do, not what a padded kernel does.
Padding does not count. Of a frozen weight there is no gradient: 4 for it instead of 6.
"""

from __future__ import annotations

from typing import Any

#: Dense bf16 peaks without sparsity, in FLOP/s, by a part of the device's name, from the vendors' data sheets.
PEAKS = {
    "B200": 2.25e15, "H200": 989e12, "H100 PCIe": 756e12, "H100 NVL": 835e12, "H100": 989e12, "A100": 312e12, "L40S": 362e12, "A10G": 70e12,
    "RTX 4090": 165.2e12, "RTX 3090": 71e12,
}  # fmt: skip


def peak_of(device: str) -> float | None:
    """The dense bf16 peak of a device by its name; None where it is not known, as for processors."""
    return next((peak for name, peak in PEAKS.items() if name in device), None)


def multiplied(model: Any) -> tuple[int, int]:
    """How many parameters of a model are multiplied with each token, and how many of them are trained."""
    import torch

    looked_up = {id(module.weight) for module in model.modules() if isinstance(module, torch.nn.Embedding)}
    head = model.get_output_embeddings()
    if head is not None:
        looked_up.discard(id(head.weight))
    used = [p for p in model.parameters() if id(p) not in looked_up]
    return sum(p.numel() for p in used), sum(p.numel() for p in used if p.requires_grad)


def attended(config: Any) -> tuple[int, int]:
    """Layers, and the width d of a layer's queries over all heads, which need not be the hidden size (Qwen3, Gemma)."""
    hidden, heads = int(getattr(config, "hidden_size", 0)), int(getattr(config, "num_attention_heads", 0) or 0)
    head = getattr(config, "head_dim", None)
    return int(getattr(config, "num_hidden_layers", 0)), heads * int(head) if heads and head else hidden


def per_token(parameters: int, trained: int, layers: int, width: int, context: float) -> float:
    """FLOPs of training on one token; `context` is the mean number of tokens in its document, T above.

    >>> per_token(100, 100, layers=2, width=10, context=5)
    1200.0
    """
    return 4.0 * parameters + 2.0 * trained + 6.0 * layers * width * context


def of_forward(parameters: int, layers: int, width: int, tokens: int) -> float:
    """FLOPs of predicting each of a sequence's tokens from those before it: a third of what training on them costs.

    >>> of_forward(100, layers=2, width=10, tokens=5)
    2000.0
    """
    return tokens * per_token(parameters, parameters, layers, width, float(tokens)) / 3.0
