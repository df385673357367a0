"""What a site says of returns: signed by targets, outlives keys, and unknown to agents of before without harm."""

from __future__ import annotations

from pathlib import Path

import pytest

from pumpdeck_fleet.core.errors import TrustError
from pumpdeck_packaging.age_box import generate_identity
from pumpdeck_packaging.metadata_form import OwnWords, parse_form
from pumpdeck_packaging.returns_policy import POLICY_FIELD, ReturnsPolicy, parse_policy
from pumpdeck_packaging.signing import generate_key
from support.forge import name_of, signed_of
from support.trust import SampleSite, verify

POLICY = ReturnsPolicy({"ada": generate_identity().public, "office": generate_identity().public})


def said(site: SampleSite) -> ReturnsPolicy | None:
    files = dict(site.trust.current_files())
    return parse_policy(parse_form(name_of(files, "targets"), files[name_of(files, "targets")]))


def test_a_site_of_before_says_nothing(tmp_path: Path) -> None:
    assert said(SampleSite(tmp_path)) is None


def test_setting_it_keeps_what_is_released_and_assigned(tmp_path: Path) -> None:
    site = SampleSite(tmp_path)
    built = site.deliver()
    before = verify(site.state(), site.files()).assignment
    version = site.trust.set_returns(POLICY, site.keys.targets, site.keys.laptops[1])
    assert version == 2 and said(site) == POLICY
    found = verify(site.state(), site.files())
    assert (found.assignment, found.package.sha256) == (before, built.sha256)
    assert site.trust.set_returns(POLICY, site.keys.targets, site.keys.laptops[0]) == 2
    assert site.trust.status().versions["targets"] == 2


def test_it_may_be_said_at_the_founding_and_outlives_a_change_of_keys(tmp_path: Path) -> None:
    site = SampleSite(tmp_path)
    site.trust.set_returns(POLICY, site.keys.targets, site.keys.laptops[0])
    site.keys.laptops[1] = generate_key()
    site.trust.rotate(site.keys.public(), site.keys.signers())
    assert said(site) == POLICY
    site.deliver()
    verify(site.state(), site.files())


@pytest.mark.parametrize("wrong", ["targets", "deploy"])
def test_other_keys_sign_nothing(tmp_path: Path, wrong: str) -> None:
    site = SampleSite(tmp_path)
    before = site.trust.current_files()
    targets = generate_key() if wrong == "targets" else site.keys.targets
    deploy = site.keys.release[0] if wrong == "deploy" else site.keys.laptops[0]
    with pytest.raises(TrustError):
        site.trust.set_returns(POLICY, targets, deploy)
    assert site.trust.current_files() == before


def test_agents_that_do_not_know_the_field_pass_over_it(tmp_path: Path) -> None:
    """The skew rule: it stands beside the field whose readers refuse what they do not know."""
    site = SampleSite(tmp_path)
    site.trust.set_returns(POLICY, site.keys.targets, site.keys.laptops[0])
    signed = signed_of(dict(site.trust.current_files()), "targets")
    assert set(signed["pumpdeck"]) <= set(OwnWords.__dataclass_fields__)
    assert signed[POLICY_FIELD]["recipients"] == dict(POLICY.recipients)
