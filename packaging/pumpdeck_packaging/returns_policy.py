"""Who may read what a device returns on a stick: a signed word of the targets role, so that no stick can add a reader.

It stands beside the other fields of `N.targets.json`, not among them: agents that do not know it pass over it and go on.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core.errors import TrustError
from pumpdeck_fleet.core.ids import is_name
from pumpdeck_packaging.bundle_layout import TARGETS
from pumpdeck_packaging.metadata_form import MetadataForm, parse_form

POLICY_FIELD = "pumpdeck_returns"
POLICY_FORMAT = 1
MAX_RECIPIENTS = 16
_AGE_KEY = re.compile(r"age1[02-9ac-hj-np-z]{58}")


@dataclass(frozen=True, slots=True)
class ReturnsPolicy:
    """`recipients` are age public keys by the name of a person or workspace. `plain`: the site says that nothing is encrypted."""

    recipients: Mapping[str, str] = field(default_factory=dict)
    plain: bool = False
    format: int = POLICY_FORMAT

    @property
    def readers(self) -> dict[str, str]:
        """Whom a return is encrypted to; empty where it is not."""
        return {} if self.plain else dict(sorted(self.recipients.items()))


def parse_policy(form: MetadataForm) -> ReturnsPolicy | None:
    """What a targets file says of returns; None when it says nothing, as those signed before there were recipients.

    Raises:
        TrustError: it says something that cannot be followed; then nothing may be returned at all.
    """
    signed = canonical.parse_json(form.data, form.name, max_bytes=len(form.data))["signed"]
    if POLICY_FIELD not in signed:
        return None
    policy = canonical.from_plain(ReturnsPolicy, signed[POLICY_FIELD], f"{form.name}.{POLICY_FIELD}")
    check_policy(policy, form.name)
    return policy


def policy_in(files: Mapping[str, bytes]) -> ReturnsPolicy | None:
    """As `parse_policy`, of the targets file in a verified set.

    Raises:
        TrustError: it says something that cannot be followed, or there is none.
    """
    names = [name for name in files if name.endswith(f".{TARGETS}.json")]
    if len(names) != 1:
        raise TrustError("is not there once", f"{TARGETS} metadata", found=len(names))
    return parse_policy(parse_form(names[0], files[names[0]]))


def policy_fields(policy: ReturnsPolicy | None) -> dict[str, Any]:
    """The field for the signed part; none when nothing is said."""
    return {} if policy is None else {POLICY_FIELD: canonical.to_plain(policy)}


def check_policy(policy: ReturnsPolicy, what: str) -> None:
    """Names, keys and numbers.

    Raises:
        TrustError: a name or key cannot be one, a key stands twice, nobody could read, or there are too many.
    """
    if policy.format != POLICY_FORMAT:
        raise TrustError("has returns in an unknown format", what, expected=POLICY_FORMAT, found=policy.format)
    keys = list(policy.recipients.values())
    for name, key in policy.recipients.items():
        if not is_name(name) or _AGE_KEY.fullmatch(key) is None:
            raise TrustError("names a recipient that cannot be one", what, expected="a name and age1..", found=name[:64])
    # Under two names a key would still read after one of them was removed.
    if len(set(keys)) != len(keys) or len(keys) > MAX_RECIPIENTS:
        raise TrustError("has one recipient twice, or too many", what, expected=f"at most {MAX_RECIPIENTS}", found=len(keys))
    if not keys and not policy.plain:
        raise TrustError("demands encryption to nobody", what, expected="a recipient", hint="add one, or allow plain returns")
