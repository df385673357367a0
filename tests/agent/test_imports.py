"""What each part of the agent may load: allow-lists against `sys.modules` of a fresh process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from support.devices import Bench, package

OURS = {"pumpdeck_agent", "pumpdeck_fleet", "pumpdeck_packaging"}
SCORING = OURS | {"numpy", "onnxruntime"}
# What onnxruntime and numpy pull in themselves, where they are installed beside them.
BROUGHT_ALONG = {"google", "flatbuffers", "packaging", "sympy", "mpmath", "coloredlogs", "humanfriendly", "onnx", "ml_dtypes"}
SIGNING = OURS | {"tuf", "securesystemslib", "cryptography", "urllib3", "_cffi_backend"}
# Brought along by cryptography, urllib3 and securesystemslib where they are installed.
BESIDE_SIGNING = {"_openssl", "bcrypt", "backports", "google", "cffi", "h2", "brotli", "zstandard", "OpenSSL", "idna"}
FLEET_PARTS = {"core", "numeric"}
PACKAGING_PARTS = {
    "age_box",
    "agent_on_stick",
    "agent_trust",
    "bundle_index",
    "bundle_kept",
    "bundle_layout",
    "bundle_part",
    "bundle_reader",
    "bundle_returns",
    "bundle_stick",
    "bundle_tar",
    "bundle_tar_writer",
    "device_rules",
    "downgrade",
    "enrolment",
    "manifest",
    "people",
    "metadata_form",
    "package_reader",
    "returns_policy",
    "sealed_package",
    "signing",
    "trust_floor",
    "trust_rules",
    "tuf_adapter",
    "ustar",
    "verify",
    "wheel_index",
    "zip_reader",
}
HEAVY = {"tuf", "securesystemslib", "cryptography", "urllib3", "pyrage"}
# Loaded by the short-lived child when it encrypts or decrypts, and by nothing else.
SEALING = {"pyrage"}
SEALING_PARTS = {"sealed_return"}

REPORT = """
import sys
known = set(sys.modules)
{statement}
names = sorted(name for name in set(sys.modules) - known)
print("\\n".join(names))
"""


def loaded(statement: str) -> set[str]:
    """Modules that a fresh process loads for this statement, without the standard library's."""
    done = subprocess.run(
        [sys.executable, "-c", REPORT.format(statement=statement)], capture_output=True, text=True, check=True
    )
    names = done.stdout.split()
    return {name for name in names if name.split(".")[0] not in sys.stdlib_module_names}


def tops(names: set[str]) -> set[str]:
    return {name.split(".")[0] for name in names}


SCORE = """
from pathlib import Path
from pumpdeck_agent.commands import this_platform
from pumpdeck_agent.config import Layout
from pumpdeck_agent.serve import make_scorer
scorer = make_scorer(this_platform(), Layout(Path({root!r})))
assert scorer.score_spool().rows == 20
"""


@pytest.fixture(scope="module")
def scoring(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """What a process has loaded that scored rows of a real package."""
    import numpy as np

    from support.devices import NOW_MS, quiet_rows

    bench = Bench(tmp_path_factory.mktemp("device"))
    bench.install(package())
    bench.spool("a.csv", {"P-101A": quiet_rows(20, 1)}, NOW_MS + 60_000 * np.arange(20))
    return loaded(SCORE.format(root=str(bench.root)))


def test_serve_loads_nothing_that_signs_or_verifies(scoring: set[str]) -> None:
    assert tops(scoring) & HEAVY == set()
    assert "onnxruntime" in tops(scoring)


def test_serve_loads_only_what_is_allowed(scoring: set[str]) -> None:
    assert tops(scoring) - SCORING - BROUGHT_ALONG == set()


def test_the_agent_uses_only_the_agreed_parts_of_the_other_packages(scoring: set[str]) -> None:
    modules = ("agent", "rpc_server", "enrol", "trial", "install_from", "install_from_tar")
    rpc = loaded("import " + ", ".join(f"pumpdeck_agent.{name}" for name in modules))
    for name in scoring | rpc:
        parts = name.split(".")
        if parts[0] == "pumpdeck_fleet" and len(parts) > 1:
            assert parts[1] in FLEET_PARTS, name
        if parts[0] == "pumpdeck_packaging" and len(parts) > 1:
            assert parts[1] in PACKAGING_PARTS, name


def test_a_return_to_recipients_loads_age_in_the_child_and_nothing_else_new() -> None:
    plain = loaded("import pumpdeck_agent.install_from")
    assert tops(plain) & SEALING == set()
    statement = (
        "import pumpdeck_agent.install_from, pumpdeck_packaging.sealed_return\n"
        "from pumpdeck_packaging.age_box import encrypt, generate_identity\n"
        "encrypt(b'x', [generate_identity().public], 'x')"
    )
    sealed = loaded(statement)
    assert tops(sealed) - tops(plain) == SEALING
    ours = {name.split(".")[1] for name in sealed - plain if name.startswith("pumpdeck_packaging.")}
    assert ours == SEALING_PARTS


def test_a_conversation_needs_neither_numpy_nor_a_runtime() -> None:
    names = tops(loaded("import pumpdeck_agent.agent, pumpdeck_agent.rpc_server, pumpdeck_agent.trial"))
    assert names - SIGNING - BESIDE_SIGNING == set()
    assert names & {"numpy", "onnxruntime"} == set()


def test_the_command_line_starts_with_our_own_modules_only() -> None:
    assert tops(loaded("import pumpdeck_agent.main")) - OURS == set()


def test_a_trial_process_signs_nothing() -> None:
    names = tops(loaded("import pumpdeck_agent.trial_child"))
    assert names & HEAVY == set()
    assert names - SCORING - BROUGHT_ALONG == set()


def test_telemetry_of_the_runtime_is_off_before_it_is_loaded() -> None:
    environment = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    statement = (
        "import sys, os\n"
        "class Watch:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'onnxruntime': print(os.environ.get('ORT_DISABLE_TELEMETRY'))\n"
        "sys.meta_path.insert(0, Watch())\n"
        "import pumpdeck_agent.runtime\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", statement], capture_output=True, text=True, check=True, env=environment
    )
    assert done.stdout.split() == ["1"]


def test_posix_calls_stand_in_one_module() -> None:
    folder = Path(sys.modules["pumpdeck_agent"].__file__ or "").parent
    for path in folder.glob("*.py"):
        # The launcher is a program of its own, on devices only; nothing of the agent imports it.
        if path.name in ("platform_posix.py", "launcher.py"):
            continue
        text = path.read_text(encoding="utf-8")
        for word in ("import fcntl", "import resource", "os.fork", "os.geteuid", "import pwd", "os.kill"):
            assert word not in text, f"{path.name}: {word}"
