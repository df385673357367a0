from __future__ import annotations

import subprocess
import sys

from pumpdeck_trainer.lineage import code_digest, digest_of_installed, lock_digest


def test_digests_are_stable_and_hex() -> None:
    assert code_digest() == code_digest()
    assert len(code_digest()) == len(lock_digest()) == 64


def test_the_lock_digest_does_not_depend_on_order_spelling_or_doubles() -> None:
    one = digest_of_installed([("NumPy", "2.0"), ("tuf", "7.0.1"), ("ruamel.yaml", "1")])
    same = digest_of_installed([("tuf", "7.0.1"), ("ruamel_yaml", "1"), ("numpy", "2.0"), ("numpy", "2.0")])
    assert one == same
    assert digest_of_installed([("numpy", "2.1"), ("tuf", "7.0.1"), ("ruamel.yaml", "1")]) != one


def test_our_own_version_is_left_to_the_code_digest() -> None:
    assert digest_of_installed([("a", "1"), ("pumpdeck", "0.1")]) == digest_of_installed(
        [("a", "1"), ("pumpdeck", "0.2")]
    )


def test_the_pipeline_is_light_until_it_exports() -> None:
    heavy = ("sklearn", "pandas", "onnx", "onnxruntime", "skl2onnx", "scipy")
    code = (
        "import sys, pumpdeck_trainer.pipeline, pumpdeck_trainer.lineage; "
        f"print([name for name in {heavy!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_runtime_is_told_not_to_phone_home_before_it_is_imported() -> None:
    code = (
        "import os, sys; os.environ.pop('ORT_DISABLE_TELEMETRY', None); seen = []\n"
        "class Watch:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'onnxruntime': seen.append(os.environ.get('ORT_DISABLE_TELEMETRY'))\n"
        "sys.meta_path.insert(0, Watch())\n"
        "import pumpdeck_trainer.parity\nprint(seen)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['1']"
