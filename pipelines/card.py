"""What stands beside the published data: a Hugging Face data card, entries for trainers, and the manifest, last."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any, cast

import msgspec
import yaml

from curate.copies import Amount, arranging, said_by
from curate.docs import Wide
from curate.pipelines import provenance
from curate.pipelines.decontaminate import DecontaminateParams
from curate.pipelines.provenance import cell
from curate.recipe import EmitSpec, StageSpec
from curate.textview import TextPlan

if TYPE_CHECKING:
    from curate.runner import Run

_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"), (10_000_000, "1M<n<10M"),
          (100_000_000, "10M<n<100M"), (1_000_000_000, "100M<n<1B"), (10_000_000_000, "1B<n<10B"), (100_000_000_000, "10B<n<100B"),
          (1_000_000_000_000, "100B<n<1T"))  # fmt: skip


#: Raised when the card, the manifest or the entries say something else of the same run.
FORM = 5


def told(run: Run) -> list[Any]:
    """All that stands beside the data and hangs on no row of the wide table: it is part of a publication's key."""
    recipe = run.recipe
    corpus = {name: value for name, value in msgspec.to_builtins(recipe.corpus).items() if name not in ("paths", "part_bytes", "format")}
    targets = [[name, target.text, list(target.files("test"))] for name, target in recipe.targets.items()]
    return [FORM, _resolved(run), provenance.audits(run), _versions(), corpus, targets, recipe.guards, run.guarded, run.listed.key if run.listed else ""]


def write(run: Run, wide: Wide, spec: EmitSpec, files: list[dict[str, Any]], held: Amount, folder: Path) -> None:
    """Write README.md, trainers/, and manifest.json."""
    pool = provenance.fingerprint(run, wide)
    (folder / "README.md").write_text(_card(run, wide, spec, held, pool), encoding="utf-8")
    (folder / "trainers").mkdir()
    for name, content in _trainer_entries(run, spec).items():
        (folder / "trainers" / name).write_text(content, encoding="utf-8")
    said = said_by(arranging(run.nodes))
    manifest = {
        "format": 1, "files": files, "documents": held.documents, "rows": held.rows, "bytes_of_text": held.bytes, "words": held.words,
        "copies": None if said is None else {"published": said.published, "sorted": said.sorted},
        "recipe": _resolved(run), "versions": _versions(), "pool": {"documents": wide.documents, "fingerprint": pool},
        "evaluation_sets": provenance.audits(run), "warnings": run.guarded,
    }  # fmt: skip
    (folder / "manifest.json").write_bytes(msgspec.json.format(msgspec.json.encode(manifest), indent=1) + b"\n")


def _versions() -> dict[str, str]:
    from curate.records import versions

    return versions()


def _kept(wide: Wide) -> dict[str, int]:
    rows = [row for row in wide.funnel.to_pylist() if row["stage"] == "kept"]
    return {what: sum(row[what] for row in rows) for what in ("documents", "bytes", "words")}


def _resolved(run: Run) -> dict[str, Any]:
    """The recipe with its defaults filled in, without paths: where files lay is not part of what was published."""
    recipe = run.recipe
    return {
        "name": recipe.name, "seed": recipe.seed, "text": recipe.corpus.text, "view": recipe.corpus.view, "id": recipe.corpus.id,
        "source": recipe.corpus.source, "license": recipe.corpus.license, "licenses": recipe.corpus.licenses, "targets": {name: {"weight": spec.weight} for name, spec in recipe.targets.items()},
        "targets_hash": run.targets.key,
        "stages": [{"stage": _without_folders(s.stage), "as": s.label, **_settings(s)} for s in recipe.stages],
    }  # fmt: skip


def _settings(spec: StageSpec) -> dict[str, Any]:
    """A stage's parameters as plain values; of a file that one names, the name; for an evaluation set's, words in capitals."""

    def plain(value: Any, key: str = "") -> Any:
        if isinstance(value, dict):
            return {k: plain(v, k) for k, v in value.items()}
        if isinstance(value, list):
            return [plain(v, key) for v in value]
        return PurePath(value).name if key in ("file", "files", "path", "paths", "against", "tokenizer") and isinstance(value, str) else value

    settings = cast(dict[str, Any], plain(msgspec.to_builtins(spec.params)))
    if isinstance(spec.params, DecontaminateParams):
        settings["sets"] = {name: {**given, "files": [f"ITEMS_OF_{name.upper()}"]} for name, given in settings["sets"].items()}
    return settings


def _without_folders(stage: str) -> str:
    """A stage as the recipe names it; of one from a file, the file's name and the class."""
    place, colon, name = stage.rpartition(":")
    return f"{PurePath(place).name}:{name}" if colon and place.endswith(".py") else stage


def _card(run: Run, wide: Wide, spec: EmitSpec, held: Amount, pool: str) -> str:
    size = next((name for limit, name in _SIZES if held.rows < limit), "n>1T")
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
        *([f"They are taken {held.rows:,} times: {held.rows:,} rows, {held.bytes / 1e6:,.2f} MB of text, {held.words:,} words."] if held.rows != held.documents else []),
        "Words are runs of characters that are not white space; MB are 10^6 bytes of UTF-8.", "",
    ]  # fmt: skip
    lines += ["## What became of the documents", "", "| stage | reason | documents | MB |", "|---|---|---:|---:|"]
    lines += [f"| {stage} | {cell(reason)} | {n:,} | {size / 1e6:,.2f} |" for stage, reason, n, size in by_stage(funnel)]
    if run.recipe.corpus.source:
        lines += ["", "## Sources", "", "| source | read | kept | kept MB | share of kept documents |", "|---|---:|---:|---:|---:|"]
        lines += [f"| {cell(name)} | {r:,} | {k:,} | {b / 1e6:,.2f} | {k / max(1, kept['documents']):.1%} |" for name, r, k, b in by_source(funnel)]
    lines += provenance.mixture(run, wide) + provenance.licences(run, wide) + provenance.cuts(run, wide) + provenance.overlaps(run, wide) + provenance.contamination(run)
    lines += provenance.warnings(run)
    stages = [{_without_folders(s.stage): {"as": s.label, **_settings(s)}} for s in run.recipe.stages]
    lines += provenance.making(run, wide, spec, stages, _versions(), pool)
    lines += _training(run, spec)
    lines += ["", f"Columns that begin with `curate_` are this selection's measures; the others are the pool's own. {_order(run)}", ""]  # fmt: skip
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


def _trainer_entries(run: Run, spec: EmitSpec) -> dict[str, str]:
    """What to paste into axolotl's `datasets`, and a dataset_info.json that LLaMA-Factory reads as it stands."""
    layout = run.corpus.layout
    plan = layout.plan
    entry = {"path": ".", "split": spec.name, **_axolotl(plan)}
    name = run.recipe.name.replace("-", "_")
    factory = {"file_name": "../data", **_llama_factory(plan, layout.schema.names)}
    notes = ["# paste the entry under `datasets` of an axolotl configuration", "# path: where this publication stands, the folder above this one"]
    if plan.kind == "template":
        notes.append(f"# the text was made of the columns {', '.join(plan.columns)}; make one column of them first, or name the one to train on")
    return {
        "axolotl.yaml": "\n".join(notes) + "\n" + yaml.safe_dump({"datasets": [entry]}, sort_keys=False, allow_unicode=True),
        "dataset_info.json": msgspec.json.format(msgspec.json.encode({name: factory}), indent=2).decode() + "\n",
    }


def _axolotl(plan: TextPlan) -> dict[str, Any]:
    columns = plan.columns
    if plan.kind in ("messages", "conversations"):
        role, content = plan.keys
        return {"type": "chat_template", "field_messages": columns[0], "message_property_mappings": {"role": role, "content": content}}
    if plan.kind == "alpaca":
        return {"type": "alpaca"}
    if plan.kind == "completion":
        pair = {"field_instruction": columns[0], "field_output": columns[1]}
        return {"type": {**pair, "format": "{instruction}\n", "no_input_format": "{instruction}\n"}}
    return {"type": "completion", "field": columns[0]}


def _llama_factory(plan: TextPlan, names: Sequence[str]) -> dict[str, Any]:
    """Every column and tag is said: those left out of an entry that says some are none."""
    columns = plan.columns
    if plan.kind in ("messages", "conversations"):
        role, content = plan.keys
        user, assistant = ("user", "assistant") if plan.kind == "messages" else ("human", "gpt")
        tags = {"role_tag": role, "content_tag": content, "user_tag": user, "assistant_tag": assistant, "observation_tag": "observation",
                "function_tag": "function_call", "system_tag": "system"}  # fmt: skip
        return {"formatting": "sharegpt", "columns": {"messages": columns[0]}, "tags": tags}
    if plan.kind == "alpaca":
        optional = {"query": "input", "system": "system", "history": "history"}
        return {"columns": {"prompt": "instruction", "response": "output", **{k: v for k, v in optional.items() if v in names}}}
    if plan.kind == "completion":
        return {"columns": {"prompt": columns[0], "response": columns[1]}}
    return {"columns": {"prompt": columns[0]}}


def _training(run: Run, spec: EmitSpec) -> list[str]:
    """How to read the publication and train on it."""
    ending = "parquet" if spec.format == "parquet" else "jsonl.zst"
    name = run.recipe.name.replace("-", "_")
    lines = ["", "## Reading and training", "", "```python", "from datasets import load_dataset", "",
             f'rows = load_dataset("PATH/TO/THIS/FOLDER", split="{spec.name}")', "```", ""]  # fmt: skip
    lines.append(f"The files are `data/{spec.name}-*.{ending}`; the manifest has their rows and SHA-256.")
    lines.append("axolotl: paste `trainers/axolotl.yaml` and set its path to this folder.")
    if spec.format == "parquet":
        lines.append(f"LLaMA-Factory: `dataset_dir: THIS/FOLDER/trainers`, `dataset: {name}`{_stage_of(run)}.")
    else:
        lines.append("LLaMA-Factory does not read compressed JSON lines: unpack the files (`zstd -d data/*.zst`, and take the .zst away), or publish with `emit: {format: parquet}`; "
                     f"then `dataset_dir: THIS/FOLDER/trainers`, `dataset: {name}`{_stage_of(run)}.")  # fmt: skip
    return lines


def _order(run: Run) -> str:
    """In which order the rows are."""
    said = said_by(arranging(run.nodes))
    if said is None or not said.in_order:
        return "Rows are in a seeded random order."
    groups = ", ".join(f"`{name}`" for name in said.published[1:])
    inside = f"sorted{' inside each' if groups else ' as the recipe says'}" if said.sorted else "in a seeded random order inside each"
    return f"Rows are to be read in their order, `{said.published[0]}`: {f'by {groups}, ' if groups else ''}{inside}."


def _stage_of(run: Run) -> str:
    plain = run.corpus.layout.plan.kind in ("column", "template")
    return ", `stage: pt` (plain text)" if plain else ", `stage: sft`"
