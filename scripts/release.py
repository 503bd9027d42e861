"""Build a release of what is committed: wheel, source archive, SBOM and their SHA-256, into a folder.

    make release    # or, in an environment of requirements/supply.lock: python scripts/release.py dist

Both archives are built twice, from two checkouts, and must be the same bytes; times in them are the commit's. The SBOM
(CycloneDX, checked against its schema as it is written) lists what a user gets with all extras that run something, in
the tested versions, with the hashes of requirements/runtime.lock.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]


def build(folder: Path) -> list[Path]:
    """Check out what is committed, and build it with the tools that are installed here."""
    source, built = folder / "equipoise", folder / "built"
    source.mkdir()
    archive = subprocess.run(["git", "archive", "HEAD"], cwd=ROOT, check=True, stdout=subprocess.PIPE).stdout
    subprocess.run(["tar", "-x"], cwd=source, input=archive, check=True)
    command = ["git", "log", "-1", "--format=%ct"]
    time = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()
    subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(built), str(source)],
        check=True, stdout=subprocess.DEVNULL, env={**os.environ, "SOURCE_DATE_EPOCH": time},
    )  # fmt: skip
    [source_archive] = built.glob("*.tar.gz")
    settle(source_archive, int(time))
    return sorted(built.iterdir())


def settle(archive: Path, time: int) -> None:
    """Give a source archive the commit's time and no owner: setuptools writes when and by whom it was built."""
    with tarfile.open(archive) as made:
        files = [(entry, made.extractfile(entry)) for entry in sorted(made.getmembers(), key=lambda one: one.name)]
        with tarfile.open(fileobj=(content := io.BytesIO()), mode="w", format=tarfile.PAX_FORMAT) as settled:
            for entry, file in files:
                entry.mtime, entry.uid, entry.gid, entry.uname, entry.gname = time, 0, 0, "", ""
                entry.mode, entry.pax_headers = 0o755 if entry.mode & 0o100 else 0o644, {}
                settled.addfile(entry, file)
    archive.write_bytes(gzip.compress(content.getvalue(), mtime=time))


def bill(target: Path) -> int:
    """Write the SBOM; returns how many packages it lists."""
    command = [sys.executable, "-m", "cyclonedx_py", "requirements", str(ROOT / "requirements" / "runtime.lock")]
    command += ["--pyproject", str(ROOT / "pyproject.toml"), "--mc-type", "library", "--output-reproducible"]
    subprocess.run([*command, "--validate", "--of", "JSON", "-o", str(target)], check=True)
    components = json.loads(target.read_text(encoding="utf-8"))["components"]
    bare = [
        one["name"] for one in components if not any(ref.get("hashes") for ref in one.get("externalReferences", ()))
    ]
    if bare:
        sys.exit(f"{target}: no hashes of {', '.join(bare)}")
    return len(components)


def main(target: Path) -> None:
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as other:
        first, second = build(Path(one)), build(Path(other))
        for file, again in zip(first, second, strict=True):
            if file.read_bytes() != again.read_bytes():
                sys.exit(f"{file.name}: two builds of one commit differ")
            (target / file.name).write_bytes(file.read_bytes())
    [wheel] = [file.name for file in first if file.suffix == ".whl"]
    name = "-".join(wheel.split("-")[:2])
    count = bill(target / f"{name}.cdx.json")
    files = [*(file.name for file in first), f"{name}.cdx.json"]
    sums = [f"{hashlib.sha256((target / file).read_bytes()).hexdigest()}  {file}\n" for file in files]
    (target / "SHA256SUMS").write_text("".join(sums), encoding="utf-8")
    print(f"{''.join(sums)}{target}: built twice, the same bytes; the SBOM lists {count} packages")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
