"""The documentation is true: its commands, queries, code, settings and links are tried, its outputs compared.

`python tests/test_docs.py` writes the outputs of docs/sql.md anew; the difference is reviewed like code.
"""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
SQL_BLOCK = re.compile(r"```sql\n(.*?)```\n(?:\n```text\n(.*?)```\n)?", re.DOTALL)


def sql_output(run: Path, query: str, scratch: Path) -> str:
    """What `curate sql` prints for a query."""
    from curate import show
    from curate.catalog import OpenRun

    out = scratch / "printed"
    show.write_table(OpenRun(run).arrow(query), "table", str(out))
    return out.read_text(encoding="utf-8")


def rewrite() -> None:
    import curate

    page = DOCS / "sql.md"
    with tempfile.TemporaryDirectory() as folder:
        curate.run(DOCS / "examples" / "small.yaml", run=Path(folder) / "run", workers=1)

        def block(match: re.Match[str]) -> str:
            printed = sql_output(Path(folder) / "run", match[1], Path(folder))
            return f"```sql\n{match[1]}```\n\n```text\n{printed}```\n"

        page.write_text(SQL_BLOCK.sub(block, page.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    rewrite()
