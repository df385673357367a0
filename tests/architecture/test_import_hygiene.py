"""What importing costs at run time: the proof in `sys.modules`, since a static rule does not see what a library imports."""

from __future__ import annotations

import json
import os
import pkgutil
import subprocess
import sys

import pytest

from support.source_tree import ROOT, SOURCE_ROOTS, imports, product_files, short, suite_files, tree_of

HEAVY = {
    "sklearn",
    "pandas",
    "pyarrow",
    "scipy",
    "onnx",
    "onnxruntime",
    "skl2onnx",
    "textual",
    "paramiko",
    "httpx",
    "tuf",
}
PATH = os.pathsep.join(str(ROOT / root) for root in SOURCE_ROOTS)


def modules_after(code: str, **more_env: str) -> set[str]:
    """Top-level names in `sys.modules` after running `code` in a fresh interpreter."""
    script = f"import sys, json\n{code}\nprint(json.dumps(sorted({{name.partition('.')[0] for name in sys.modules}})))"
    env = {**os.environ, "PYTHONPATH": PATH, **more_env}
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, encoding="utf-8", env=env, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_the_core_loads_nothing_but_the_standard_library() -> None:
    folder = ROOT / "fleet" / "pumpdeck_fleet" / "core"
    names = [f"pumpdeck_fleet.core.{module.name}" for module in pkgutil.iter_modules([str(folder)])]
    assert len(names) > 15
    bare = modules_after("pass")
    loaded = modules_after("\n".join(f"import {name}" for name in names))
    assert loaded - bare - set(sys.stdlib_module_names) == {"pumpdeck_fleet"}


@pytest.mark.parametrize(
    ("module", "forbidden"),
    [
        ("pumpdeck_console.main", HEAVY | {"numpy", "rich"}),
        ("pumpdeck_fleet.store", HEAVY | {"numpy"}),
        ("pumpdeck_fleet.services.deploy", HEAVY | {"numpy", "cryptography"}),
        ("pumpdeck_fleet.services.deploy_delivery", HEAVY | {"numpy", "cryptography"}),
        ("pumpdeck_fleet.services.collect", HEAVY | {"numpy", "cryptography"}),
        ("pumpdeck_fleet.services.inventory_file", HEAVY | {"numpy"}),
        ("pumpdeck_fleet.numeric.alarm", HEAVY),
        ("pumpdeck_packaging.manifest", HEAVY | {"numpy", "cryptography", "securesystemslib"}),
        ("pumpdeck_packaging.package_reader", HEAVY | {"numpy", "cryptography", "securesystemslib"}),
    ],
)
def test_importing_it_stays_cheap(module: str, forbidden: set[str]) -> None:
    assert modules_after(f"import {module}") & forbidden == set()


SWITCH = "ORT_DISABLE_TELEMETRY"
IMPORTERS = [path for path in (*product_files(), *suite_files()) if any(
    module.partition(".")[0] == "onnxruntime" for module, _ in imports(tree_of(path))
)]  # fmt: skip


@pytest.mark.parametrize("path", IMPORTERS, ids=short)
def test_the_runtimes_telemetry_is_off_before_it_is_imported(path: object) -> None:
    """Its Linux wheels phone home by default. The switch stands in the same file, above the import."""
    tree = tree_of(path)  # type: ignore[arg-type]
    first = min(line for module, line in imports(tree) if module.partition(".")[0] == "onnxruntime")
    above = path.read_text(encoding="utf-8").splitlines()[: first - 1]  # type: ignore[attr-defined]
    assert any(SWITCH in line and "environ" in line and not line.lstrip().startswith("#") for line in above), path


def test_no_import_of_ours_reaches_the_runtime_with_its_telemetry_on() -> None:
    """Every module that can reach onnxruntime is imported with the switch unset, under a finder that looks at it."""
    names = sorted(
        short(path).split("/", 1)[1].removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        for path in product_files()
        if path in IMPORTERS or "pumpdeck_trainer" in path.parts
    )
    guard = (
        "import os, sys\n"
        f"os.environ.pop({SWITCH!r}, None)\n"
        "class Guard:\n"
        "    seen = []\n"
        "    @classmethod\n"
        "    def find_spec(cls, name, path=None, target=None):\n"
        "        if name == 'onnxruntime':\n"
        f"            cls.seen.append(os.environ.get({SWITCH!r}))\n"
        "sys.meta_path.insert(0, Guard)\n"
    )
    lines = "\n".join(
        f"sys.modules.pop('onnxruntime', None) or os.environ.pop({SWITCH!r}, None); import {name}" for name in names
    )
    modules_after(f"{guard}{lines}\nassert Guard.seen and set(Guard.seen) == {{'1'}}, Guard.seen")
