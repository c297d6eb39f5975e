"""What stands beside the published data: a Hugging Face data card, entries for trainers, and the manifest, last."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import yaml

from curate.docs import Wide
from curate.recipe import EmitSpec

if TYPE_CHECKING:
    from curate.runner import Run

_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"), (10_000_000, "1M<n<10M"),
          (100_000_000, "10M<n<100M"), (1_000_000_000, "100M<n<1B"))  # fmt: skip


def write(run: Run, wide: Wide, spec: EmitSpec, files: list[dict[str, Any]], folder: Path) -> None:
    """Write README.md, trainers/, and manifest.json."""
    rows = sum(f["rows"] for f in files)
    (folder / "README.md").write_text(_card(run, wide, spec, rows), encoding="utf-8")
    (folder / "trainers").mkdir()
    for name, content in _trainer_entries(run, spec, files).items():
        (folder / "trainers" / name).write_text(content, encoding="utf-8")
    manifest = {
        "format": 1, "files": files, "rows": rows, "bytes_of_text": _kept(wide)["bytes"], "words": _kept(wide)["words"],
        "recipe": _resolved(run), "versions": _versions(),
    }  # fmt: skip
    (folder / "manifest.json").write_bytes(msgspec.json.format(msgspec.json.encode(manifest), indent=1) + b"\n")


def _versions() -> dict[str, str]:
    from curate.runner import versions

    return versions()


def _kept(wide: Wide) -> dict[str, int]:
    rows = [row for row in wide.funnel.to_pylist() if row["stage"] == "kept"]
    return {what: sum(row[what] for row in rows) for what in ("documents", "bytes", "words")}


def _resolved(run: Run) -> dict[str, Any]:
    """The recipe with its defaults filled in, without paths: where files lay is not part of what was published."""
    recipe = run.recipe
    return {
        "name": recipe.name, "seed": recipe.seed, "text": recipe.corpus.text, "view": recipe.corpus.view, "id": recipe.corpus.id,
        "source": recipe.corpus.source, "targets": {name: {"weight": spec.weight} for name, spec in recipe.targets.items()},
        "targets_hash": run.targets_key,
        "stages": [{"stage": s.stage, "as": s.label, **msgspec.to_builtins(s.params)} for s in recipe.stages],
    }  # fmt: skip


def _card(run: Run, wide: Wide, spec: EmitSpec, rows: int) -> str:
    size = next((name for limit, name in _SIZES if rows < limit), "n>1B")
    ending = "parquet" if spec.format == "parquet" else "jsonl.zst"
    front = {
        "configs": [{"config_name": "default", "data_files": [{"split": spec.name, "path": f"data/{spec.name}-*.{ending}"}]}],
        "size_categories": [size], "tags": ["curate", "data-selection"], "task_categories": ["text-generation"],
    }  # fmt: skip
    kept, funnel = _kept(wide), wide.funnel.to_pylist()
    read = sum(row["documents"] for row in funnel)
    lines = [
        "---", yaml.safe_dump(front, sort_keys=False).strip(), "---", "", f"# {run.recipe.name}", "",
        f"{kept['documents']:,} documents ({kept['bytes'] / 1e6:,.2f} MB of text, {kept['words']:,} words) of {read:,} read, chosen by curate.",
        "Words are runs of characters that are not white space; MB are 10^6 bytes of UTF-8.", "",
    ]  # fmt: skip
    lines += ["## What became of the documents", "", "| stage | reason | documents | MB |", "|---|---|---:|---:|"]
    lines += [f"| {stage} | {reason} | {n:,} | {size / 1e6:,.2f} |" for stage, reason, n, size in by_stage(funnel)]
    if run.recipe.corpus.source:
        lines += ["", "## Sources", "", "| source | read | kept | kept MB | share of kept documents |", "|---|---:|---:|---:|---:|"]
        lines += [f"| {name} | {r:,} | {k:,} | {b / 1e6:,.2f} | {k / max(1, kept['documents']):.1%} |" for name, r, k, b in by_source(funnel)]
    lines += ["", "## How", "", f"Seed {run.recipe.seed}. Stages, in order, with every setting:", "", "```yaml",
              yaml.safe_dump([{s.stage: {"as": s.label, **msgspec.to_builtins(s.params)}} for s in run.recipe.stages], sort_keys=False).strip(), "```"]  # fmt: skip
    if run.recipe.targets:
        lines += ["", "Targets: " + ", ".join(f"{name} ({run.targets[name]['guide'].num_rows} guide documents)" for name in run.recipe.targets) + "."]
    lines += ["", "Versions: " + ", ".join(f"{name} {value}" for name, value in _versions().items()) + ".", "",
              "Columns that begin with `curate_` are this selection's measures; the others are the pool's own. Rows are in a seeded random order.", ""]  # fmt: skip
    return "\n".join(lines)


def by_stage(funnel: list[dict[str, Any]]) -> list[tuple[str, str, int, int]]:
    """(stage, reason, documents, bytes) in the order of the stages, over all sources."""
    found: dict[tuple[int, str, str], list[int]] = {}
    for row in funnel:
        entry = found.setdefault((row["position"], row["stage"], row["reason"] or ""), [0, 0])
        entry[0] += row["documents"]
        entry[1] += row["bytes"]
    return [(stage, reason, n, size) for (_, stage, reason), (n, size) in sorted(found.items())]


def by_source(funnel: list[dict[str, Any]]) -> list[tuple[str, int, int, int]]:
    """(source, documents read, documents kept, bytes kept), by name."""
    found: dict[str, list[int]] = {}
    for row in funnel:
        entry = found.setdefault("(none)" if row["source"] is None else str(row["source"]), [0, 0, 0])
        entry[0] += row["documents"]
        if row["stage"] == "kept":
            entry[1] += row["documents"]
            entry[2] += row["bytes"]
    return [(name, *values) for name, values in sorted(found.items())]  # type: ignore[misc]


def _trainer_entries(run: Run, spec: EmitSpec, files: list[dict[str, Any]]) -> dict[str, str]:
    """Entries to paste into axolotl's `datasets` and LLaMA-Factory's dataset_info.json."""
    kind, columns = run.corpus.layout.text_kind, list(run.corpus.layout.text_columns)
    entry: dict[str, Any] = {"path": "data", "ds_type": "parquet" if spec.format == "parquet" else "json", "split": "train"}
    factory: dict[str, Any] = {"file_name": "data"}
    if kind == "messages":
        entry |= {"type": "chat_template", "field_messages": columns[0]}
        factory |= {"formatting": "sharegpt", "columns": {"messages": columns[0]},
                    "tags": {"role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant"}}  # fmt: skip
    elif kind == "conversations":
        entry |= {"type": "chat_template", "field_messages": columns[0],
                  "message_property_mappings": {"role": "from", "content": "value"}}  # fmt: skip
        factory |= {"formatting": "sharegpt", "columns": {"messages": columns[0]}}
    elif kind == "alpaca":
        entry |= {"type": "alpaca"}
        factory |= {"columns": {"prompt": "instruction", "query": "input", "response": "output"}}
    elif kind == "completion":
        entry |= {"type": {"field_instruction": columns[0], "field_output": columns[1], "format": "{instruction}\n"}}
        factory |= {"columns": {"prompt": columns[0], "response": columns[1]}}
    else:
        entry |= {"type": "completion", "field": columns[0]}
        factory |= {"columns": {"prompt": columns[0]}}
    name = run.recipe.name.replace("-", "_")
    return {
        "axolotl.yaml": "# paste under `datasets`; path is relative to this publication\n" + yaml.safe_dump({"datasets": [entry]}, sort_keys=False),
        "dataset_info.json": msgspec.json.format(msgspec.json.encode({name: factory}), indent=2).decode() + "\n",
    }
