"""Chat templates: masks by hand, with and without generation tags, and templates that cannot be masked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tiny_training import tokenizer

from curate import chatmask
from curate.errors import ConfigError, DataError

WORDS = ["unk", "U", "A", "END", "hi", "yo", "bye", "S"]
PLAIN = (
    "{% for m in messages %}{{ 'U ' if m.role == 'user' else 'A ' }}{{ m.content }} END {% endfor %}{% if add_generation_prompt %}A {% endif %}"
)
TAGGED = (
    "{% for m in messages %}{% if m.role == 'user' %}U {{ m.content }} END {% else %}A {% generation %}{{ m.content }} END {% endgeneration %}{% endif %}{% endfor %}"
)
LOSING = "{% for m in messages %}{% if m.role == 'user' or loop.last %}{{ 'U ' if m.role == 'user' else 'A ' }}{{ m.content }} END {% endif %}{% endfor %}"
TURNS = [{"role": r, "content": c} for r, c in (("user", "hi"), ("assistant", "yo"), ("user", "bye"), ("assistant", "bye hi"))]


def with_template(folder: Path, template: str | None) -> Path:
    tokenizer(folder, WORDS)
    from transformers import AutoTokenizer

    made: Any = AutoTokenizer.from_pretrained(str(folder))
    made.chat_template = template
    made.save_pretrained(str(folder))
    return folder


@pytest.mark.parametrize("template", [PLAIN, TAGGED], ids=["without tags", "with tags"])
def test_what_the_assistant_says_is_learned_with_its_end(template: str, tmp_path: Path) -> None:
    ids, mask = chatmask.encode(with_template(tmp_path / "t", template), TURNS)
    assert [WORDS[i] for i in ids] == ["U", "hi", "END", "A", "yo", "END", "U", "bye", "END", "A", "bye", "hi", "END"]
    assert mask == [0, 0, 0, 0, 1, 1, 0, 0, 0, 0, 1, 1, 1]


def test_a_template_that_forgets_earlier_turns_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be masked: rendered up to turn 2 of 4"):
        chatmask.encode(with_template(tmp_path / "t", LOSING), TURNS)


def test_a_conversation_that_the_assistant_begins_is_refused_without_tags(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="begins with the assistant"):
        chatmask.encode(with_template(tmp_path / "t", PLAIN), TURNS[1:])


def test_without_a_word_of_the_assistant_there_is_nothing(tmp_path: Path) -> None:
    assert chatmask.encode(tmp_path, TURNS[:1]) == ([], [])


def test_a_tokenizer_without_a_template_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="chat template"):
        chatmask.encode(with_template(tmp_path / "t", None), TURNS)
