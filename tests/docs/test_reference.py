"""The generated pages are those of the code; `make docs` writes them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_reference_is_current(tmp_path: Path) -> None:
    (tmp_path / "generate.py").write_text((ROOT / "docs/generate.py").read_text())
    subprocess.run([sys.executable, tmp_path / "generate.py"], check=True, cwd=ROOT, stdout=subprocess.DEVNULL)
    names = {path.name for path in (ROOT / "docs/reference").iterdir()}
    assert names == {path.name for path in (tmp_path / "reference").iterdir()}
    for name in names:
        current = (tmp_path / "reference" / name).read_text() == (ROOT / "docs/reference" / name).read_text()
        assert current, f"docs/reference/{name} is out of date: run `make docs`"
