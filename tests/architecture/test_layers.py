"""The static import rules (import-linter's contracts) and the traps of this layout."""

from __future__ import annotations

import subprocess
import sys

from support.source_tree import ROOT, SOURCE_ROOTS, imports, product_files, short, tree_of


def test_the_import_contracts_hold() -> None:
    code = "from importlinter.cli import lint_imports; raise SystemExit(lint_imports())"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, encoding="utf-8", check=False
    )
    assert done.returncode == 0, done.stdout[-4000:]


def test_the_packaging_library_is_not_hidden_by_the_folder_of_that_name() -> None:
    """pip, pytest, build and onnxruntime import it; an `__init__.py` in `packaging/` would break them all."""
    code = "import packaging.version as v; print(v.Version('1.10') > v.Version('1.9'), v.__file__)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, encoding="utf-8", check=True
    )
    right, file = done.stdout.split(maxsplit=1)
    assert right == "True"
    assert str(ROOT / "packaging") not in file


def test_no_init_file_stands_where_it_would_hide_something() -> None:
    for root in SOURCE_ROOTS:
        assert not (ROOT / root / "__init__.py").exists()
        packages = [folder for folder in (ROOT / root).iterdir() if folder.is_dir() and folder.name != "__pycache__"]
        assert all(folder.name.startswith("pumpdeck_") for folder in packages), packages
    assert list((ROOT / "tests").rglob("__init__.py")) == []
    assert not (ROOT / "tests" / "packaging").exists()


def test_every_folder_with_code_is_a_package() -> None:
    """A missing `__init__.py` makes a namespace package: it works here and is missing from the wheel's typing and from mypy."""
    folders = {path.parent for path in product_files()}
    assert [short(folder) for folder in sorted(folders) if not (folder / "__init__.py").exists()] == []
    roots = {folder for root in SOURCE_ROOTS for folder in (ROOT / root).glob("pumpdeck_*")}
    assert [short(folder) for folder in sorted(roots) if not (folder / "py.typed").exists()] == []


OWNERS = {
    "paramiko": {
        "fleet/pumpdeck_fleet/transports/",
        "sample_fleet/pumpdeck_sample/",
    },
    "textual": {"console/pumpdeck_console/tui/"},
    "sqlite3": {"fleet/pumpdeck_fleet/store/"},
    "keyring": {"console/pumpdeck_console/"},
    "tuf": {"packaging/pumpdeck_packaging/"},
    "onnxruntime": {"packaging/pumpdeck_agent/runtime.py", "trainer/pumpdeck_trainer/"},
    "click": {"console/pumpdeck_console/"},
}


def test_each_adapter_library_has_one_home() -> None:
    for path in product_files():
        for module, line in imports(tree_of(path)):
            homes = OWNERS.get(module.partition(".")[0])
            assert homes is None or any(short(path).startswith(home) for home in homes), (
                f"{short(path)}:{line}: {module}"
            )
