"""Execute examples/notebook.ipynb in place, from top to bottom, and keep its outputs small and free of this machine.

    python scripts/notebook.py [FILE]        # a few minutes on two cores

It works in a temporary folder, so nothing is left behind. What a cell prints to stderr (libraries' notices) is dropped,
and so are execution times; an error ends the run and leaves the file as it was.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient

FILE = Path(__file__).parents[1] / "examples" / "notebook.ipynb"


def executed(notebook: nbformat.NotebookNode, folder: Path, timeout: int = 1200) -> nbformat.NotebookNode:
    """The notebook with its outputs.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell failed.
    """
    NotebookClient(
        notebook, timeout=timeout, kernel_name="python3", resources={"metadata": {"path": str(folder)}}
    ).execute()
    for cell in notebook.cells:
        cell.metadata = {}
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
    notebook.metadata = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"},
                         "language_info": {"name": "python"}}  # fmt: skip
    return notebook


if __name__ == "__main__":
    file = Path(sys.argv[1]) if len(sys.argv) > 1 else FILE
    with tempfile.TemporaryDirectory() as place:
        done = executed(nbformat.read(file, as_version=4), Path(place))
    nbformat.write(done, file)
    print(f"{file}: {file.stat().st_size / 1024:.0f} kB")
