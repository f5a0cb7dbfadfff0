"""Notebooks and thumbnails of the examples: ``python examples/make_notebooks.py [NAME ...]``.

A script's ``# %% [markdown]`` cells become text, its ``# %%`` cells code. Each notebook is executed
from its first cell to its last in a folder of its own and written to ``notebooks/NAME.ipynb``; the
figure NAME.png that it saves becomes ``thumbnails/NAME.png``. Needs nbclient, ipykernel, and what
the examples need.
"""

from __future__ import annotations

import re
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
THUMBNAIL_WIDTH = 420  # pixels
KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}


def examples() -> list[Path]:
    """The example scripts, by name."""
    return [path for path in sorted(HERE.glob("*.py")) if path != Path(__file__)]


def cells(source: str) -> list[tuple[str, str]]:
    """Pairs ("markdown" or "code", text) of a script."""
    parts = re.split(r"^# %%(.*)\n", source, flags=re.MULTILINE)
    pairs = []
    for tag, text in zip(parts[1::2], parts[2::2], strict=True):
        kind = "markdown" if "[markdown]" in tag else "code"
        if kind == "markdown":
            text = re.sub(r"^# ?", "", text, flags=re.MULTILINE)
        pairs.append((kind, text.strip()))
    return pairs


def make(path: Path) -> None:
    """Execute the notebook of a script; write it and its thumbnail."""
    import nbformat
    from nbclient import NotebookClient
    from PIL import Image

    new = {"markdown": nbformat.v4.new_markdown_cell, "code": nbformat.v4.new_code_cell}
    notebook = nbformat.v4.new_notebook(metadata={"kernelspec": KERNEL})
    for i, (kind, text) in enumerate(cells(path.read_text(encoding="utf-8"))):
        notebook.cells.append(new[kind](text, id=f"cell-{i}"))
    with tempfile.TemporaryDirectory() as folder:
        resources = {"metadata": {"path": folder}}
        options = {"timeout": 300, "record_timing": False, "coalesce_streams": True}
        NotebookClient(notebook, resources=resources, **options).execute()
        figure = Image.open(Path(folder) / f"{path.stem}.png").convert("RGB")
    figure.thumbnail((THUMBNAIL_WIDTH, THUMBNAIL_WIDTH), Image.Resampling.LANCZOS)
    for name in ("thumbnails", "notebooks"):
        (HERE / name).mkdir(exist_ok=True)
    figure.save(HERE / "thumbnails" / f"{path.stem}.png", optimize=True)
    nbformat.write(notebook, HERE / "notebooks" / f"{path.stem}.ipynb")


if __name__ == "__main__":
    for name in sys.argv[1:] or [path.stem for path in examples()]:
        make(HERE / f"{name}.py")
        print(name)
