"""Which tests are collected: where torch is not installed, those that need it are left out, and the header says so."""

from __future__ import annotations

import importlib.util
import os
import signal

# Whoever runs the tests under nohup, or behind an `&`, ignores these, and so would every command that they start.
for number, usual in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL), (signal.SIGQUIT, signal.SIG_DFL)):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, usual)

# Commands that tests start compile the program once, not each time, also where containers switch that off.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

#: Test files that need torch, transformers, peft and safetensors, the extra [train].
NEED_TORCH = [
    "pipelines/test_tokenize.py",
    "pipelines/test_train.py",
    "scorers/test_color_filter.py",
    "scorers/test_lm.py",
    "scorers/test_token_count.py",
    "test_adapters.py",
    "test_chatmask.py",
    "test_checkpoint.py",
    "test_distributed.py",
    "test_flops.py",
    "test_forgetting.py",
    "test_language_model.py",
    "test_modelpair.py",
    "test_models.py",
    "test_prepared.py",
    "test_textmodel.py",
    "test_tokenizing.py",
    "test_training.py",
]
MISSING = [name for name in ("torch", "transformers", "peft", "safetensors") if importlib.util.find_spec(name) is None]
collect_ignore = NEED_TORCH if MISSING else []


def pytest_report_header() -> str | None:
    if not MISSING:
        return None
    return f"NOT COLLECTED without {', '.join(MISSING)} (the extra [train]): {', '.join(NEED_TORCH)}"
