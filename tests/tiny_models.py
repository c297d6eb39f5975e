"""Small language models with random weights, made where they are needed: real Hugging Face folders."""

from __future__ import annotations

from pathlib import Path

TEXTS = ["the ship left the harbour before the sun was up", "def add(a, b):\n    return a + b\n", "Das Meer war ruhig.", "two plus two is four"] * 20


def tokenizer(folder: Path, *, vocabulary: int = 300, bos: bool = True) -> None:
    """A byte-level BPE of few merges."""
    import tokenizers
    import transformers

    model = tokenizers.Tokenizer(tokenizers.models.BPE())
    model.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    model.decoder = tokenizers.decoders.ByteLevel()
    special = ["<s>", "</s>"] if bos else []
    trainer = tokenizers.trainers.BpeTrainer(vocab_size=vocabulary, special_tokens=special, initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(), show_progress=False)
    model.train_from_iterator(TEXTS, trainer)
    more = {"bos_token": "<s>", "eos_token": "</s>"} if bos else {}
    transformers.PreTrainedTokenizerFast(tokenizer_object=model, **more).save_pretrained(folder)


def causal(folder: Path, *, seed: int = 0, context: int = 64, vocabulary: int = 300, bos: bool = True) -> Path:
    """A Llama of two layers."""
    import torch
    import transformers

    tokenizer(folder, vocabulary=vocabulary, bos=bos)
    torch.manual_seed(seed)
    config = transformers.LlamaConfig(
        vocab_size=vocabulary, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        max_position_embeddings=context, tie_word_embeddings=True,
    )  # fmt: skip
    model = transformers.LlamaForCausalLM(config)
    for parameter in model.parameters():
        parameter.data.mul_(4)  # so that losses differ from ln(vocabulary)
    model.save_pretrained(folder)
    return folder
