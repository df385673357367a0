"""What a site says beside its keys, in the signed part of `N.targets.json`: it outlives every change of keys."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pumpdeck_packaging.device_rules import SiteRules, parse_rules, rules_fields
from pumpdeck_packaging.metadata_form import MetadataForm
from pumpdeck_packaging.returns_policy import ReturnsPolicy, parse_policy, policy_fields


@dataclass(frozen=True, slots=True)
class SiteWords:
    """Who may read returns, and what devices demand. None: nothing is said of it."""

    returns: ReturnsPolicy | None = None
    rules: SiteRules | None = None

    def fields(self) -> dict[str, Any]:
        """The fields for the signed part; what is not said is left out, so that earlier metadata keeps its bytes."""
        return policy_fields(self.returns) | rules_fields(self.rules)


NO_WORDS = SiteWords()


def words_of(form: MetadataForm) -> SiteWords:
    """What a targets file says. Raises: TrustError: something that cannot be followed."""
    return SiteWords(parse_policy(form), parse_rules(form))
