"""What the agent's serving process reads must not bring cryptography along: it alone would cost 20 MB."""

from __future__ import annotations

import subprocess
import sys

import pytest

TRUST = ("cryptography", "tuf", "securesystemslib", "urllib3", "pyrage")
HEAVY = (*TRUST, "google.protobuf", "in_toto_attestation", "numpy", "msgspec", "keyring")


def loaded(module: str) -> set[str]:
    code = f"import sys, {module}; print(*sys.modules)"
    return set(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split())


CORE_ONLY = ["manifest", "package_reader", "ustar", "trust_floor", "bundle_layout", "metadata_form", "returns_policy"]


@pytest.mark.parametrize("module", CORE_ONLY)
def test_reading_a_package_needs_the_standard_library_only(module: str) -> None:
    assert loaded(f"pumpdeck_packaging.{module}").isdisjoint(HEAVY)


def test_verifying_needs_no_builder() -> None:
    found = loaded("pumpdeck_packaging.verify")
    assert found.isdisjoint({"google.protobuf", "in_toto_attestation", "numpy", "msgspec", "keyring"})


def test_looking_for_keys_does_not_ask_the_desktop() -> None:
    assert "keyring" not in loaded("pumpdeck_console.credentials")
