"""What an assignment must bring with it before its package is so much as unpacked: asked of facts alone, nothing is changed."""

from __future__ import annotations

from dataclasses import replace

from pumpdeck_agent.config import AgentConfig
from pumpdeck_agent.state import DeviceState, UsedToken
from pumpdeck_fleet.core.errors import RefusedError, ReplayError
from pumpdeck_packaging.bundle_layout import ASSIGNMENT_NAME
from pumpdeck_packaging.device_rules import DeviceRules, rules_in
from pumpdeck_packaging.verify import VerifiedAssignment


def under_rules(config: AgentConfig, verified: VerifiedAssignment) -> AgentConfig:
    """The device's description with what its site demands in signed words; those win over what stands in `agent.json`.

    Raises:
        TrustError: the site demands something that this agent cannot follow.
    """
    rules = rules_in({name: data for name, data in verified.keep.items() if name != ASSIGNMENT_NAME})
    if rules is None:
        return config
    own = DeviceRules(config.needs_permit, config.undo_needs_token)
    found = rules.of_class(config.device_class).over(own)
    return replace(config, needs_permit=found.needs_permit, undo_needs_token=found.undo_needs_token)


def check_token(state: DeviceState, verified: VerifiedAssignment) -> UsedToken | None:
    """The use to be remembered of the downgrade word in this assignment; None when it brings none.

    Raises:
        ReplayError: the word served another assignment already.
    """
    token, seq = verified.token, verified.assignment.seq
    if token is None:
        return None
    before = state.token_use(token.digest)
    if before is not None and before.seq != seq:
        raise ReplayError(
            "was used already",
            "downgrade word",
            expected="a word that served no assignment yet",
            found=f"one that served seq {before.seq}",
            hint="make a new word and let two people sign it",
        )
    return UsedToken(token.digest, seq, token.word.until_seq)


def why_refused(config: AgentConfig, state: DeviceState, verified: VerifiedAssignment) -> str:
    """Why this device turns the assignment down although it believes it; empty when it does not."""
    assignment = verified.assignment
    if config.needs_permit and assignment.permit is None:
        return "this device takes nothing without a permit or work-order number (rollout start --permit NUMBER)"
    if assignment.package_sha256 in state.failed and not assignment.retry:
        return "this package failed on this device before; it is tried again only when asked for (rollout start --retry)"
    if is_downgrade(config, state, verified) and verified.token is None:
        return (
            f"this package (release {verified.package.words.release}) is older than what ran here "
            f"(release {state.newest_release}); going back needs a word of two people (pumpdeck trust downgrade)"
        )
    return ""


def is_downgrade(config: AgentConfig, state: DeviceState, verified: VerifiedAssignment) -> bool:
    """True when the package was released before one that was committed here.

    The package that ran right before is the way back of an ordinary revert, one step and no further, unless the device's own
    rules ask for a word there too.
    """
    if verified.package.words.release >= state.newest_release:
        return False
    is_undo = verified.assignment.package_sha256 == state.previous_sha256
    return not is_undo or bool(config.undo_needs_token)


def check_format(state: DeviceState, known: int) -> None:
    """Raises: RefusedError: a newer agent wrote the state; this one must not touch it."""
    if state.format > known:
        raise RefusedError(
            "was written by a newer agent",
            "device state",
            expected=f"format {known} or older",
            found=f"format {state.format}",
            hint="upgrade the agent; what is active goes on scoring meanwhile",
        )
