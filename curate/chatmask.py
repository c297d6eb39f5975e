"""Conversations through a tokenizer's chat template, with a mask of what the assistant said.

A template with generation tags marks it. Without them, the conversation is rendered up to each of the assistant's turns and
behind it; each rendering must be the beginning of the next, token for token, or the template cannot be masked.
"""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from curate.errors import ConfigError, DataError


@lru_cache(maxsize=2)
def _tokenizer(folder: Path) -> Any:
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    from curate.models import load_tokenizer

    found = load_tokenizer(folder)
    if not found.chat_template:
        raise ConfigError(f"loss: chat needs a tokenizer with a chat template, and that of {folder} has none; use loss: response, or the tokenizer of a chat model")
    return found


def encode(folder: Path, turns: list[dict[str, str]]) -> tuple[list[int], list[int]]:
    """Ids and mask of a conversation, of one length; ([], []) where the assistant says nothing."""
    if not any(turn["role"] == "assistant" for turn in turns):
        return [], []
    tokenizer = _tokenizer(folder)
    try:
        if "generation %}" in tokenizer.chat_template or "generation -%}" in tokenizer.chat_template:
            return _by_tags(tokenizer, turns)
        return _by_prefixes(tokenizer, turns)
    except (DataError, ConfigError):
        raise
    except Exception as error:  # templates raise what they like: roles that must alternate, a system turn that may not be
        raise DataError(f"the chat template refuses a conversation of the roles {', '.join(t['role'] for t in turns)[:200]}: {error}") from error


def _by_tags(tokenizer: Any, turns: list[dict[str, str]]) -> tuple[list[int], list[int]]:
    """The tokens that lie inside the marked ranges of characters.

    Not transformers' own mask: where a range ends in white space that is in no token, it has the next token too.
    """
    from transformers.utils import chat_template_utils

    templates: Any = chat_template_utils
    texts, ranges = templates.render_jinja_template(
        conversations=[turns], chat_template=tokenizer.chat_template, return_assistant_tokens_mask=True, **tokenizer.special_tokens_map
    )
    found = tokenizer(texts[0], add_special_tokens=False, return_offsets_mapping=True)
    places = np.array(found["offset_mapping"], np.int64).reshape(-1, 2)
    mask = np.zeros(len(places), np.int64)
    for start, stop in ranges[0]:
        mask[(places[:, 0] >= start) & (places[:, 1] <= stop)] = 1
    if list(found["input_ids"]) != _render(tokenizer, turns):
        raise DataError("the chat template's text gives other tokens than the template does; use a template without {% generation %} tags, or loss: response")
    return list(found["input_ids"]), mask.tolist()


def _by_prefixes(tokenizer: Any, turns: list[dict[str, str]]) -> tuple[list[int], list[int]]:
    whole = _render(tokenizer, turns)
    mask = np.zeros(len(whole), np.int64)
    for at, turn in enumerate(turns):
        if turn["role"] != "assistant":
            continue
        if at == 0:
            raise DataError("a conversation begins with the assistant, and its template has no generation tags: where its turn begins cannot be found")
        before, behind = _render(tokenizer, turns[:at], prompt=True), _render(tokenizer, turns[: at + 1])
        if whole[: len(behind)] != behind or behind[: len(before)] != before:
            raise DataError(
                f"the chat template cannot be masked: rendered up to turn {at + 1} of {len(turns)}, its tokens are not those of the whole conversation; "
                "use a template with {% generation %} tags, or loss: response"
            )
        mask[len(before) : len(behind)] = 1
    return whole, mask.tolist()


def _render(tokenizer: Any, turns: list[dict[str, str]], prompt: bool = False) -> list[int]:
    return list(tokenizer.apply_chat_template(turns, tokenize=True, add_generation_prompt=prompt, return_dict=True)["input_ids"])
