"""More laptops beside the one of a courier fleet: of the same person, or of another one with keys of their own."""

from __future__ import annotations

from pathlib import Path

from pumpdeck_console.credentials import Source
from pumpdeck_console.operations import rollouts as rollout_operations
from pumpdeck_console.operations.other_side import peoples_files
from pumpdeck_console.operations.syncing import sync
from pumpdeck_console.operations.trust_changing import (
    ChangeRequest,
    NewKey,
    make_change,
    publish_proposals,
    sign_with_own_keys,
)
from pumpdeck_console.operations.trust_making import NewKeyRequest, make_key
from pumpdeck_console.operations.workspace import init_workspace
from pumpdeck_console.wiring import KeyOptions, Workspace
from pumpdeck_fleet.core.files import RealFileSystem
from pumpdeck_fleet.core.rollout import Rollout
from pumpdeck_fleet.core.rollout_plan import RolloutPolicy
from pumpdeck_fleet.services import deploy
from pumpdeck_packaging.signing import Ed25519Signer, load_key
from pumpdeck_packaging.trust_proposal import sign_proposal
from support.courier_fleet import MODEL, POLICY, CourierFleet

TWO_PEOPLE = RolloutPolicy(waves=("rest",), soak_s=10.0, approvals=2)


def laptop(fleet: CourierFleet, name: str) -> Workspace:
    """A second laptop with the same inventory and keys, which has taken in what the first one knows."""
    files = peoples_files(fleet.workspace.root) | {"settings.toml": (fleet.workspace.root / "settings.toml").read_bytes()}
    texts = {path: data.decode("utf-8") for path, data in files.items()}
    init_workspace(fleet.folder / name, files=texts, clock=fleet.clock)
    other = Workspace(fleet.folder / name, fleet.clock, RealFileSystem(), keys=fleet.workspace.keys)
    with other.store.atomic() as store:
        store.lives.use_keys_of(fleet.workspace.store.workspace)
    sync(other, folder=str(fleet.workspace.root), new_roots=True)
    return other


def colleague(fleet: CourierFleet, name: str, *, person: str = "") -> Workspace:
    """A laptop with a deploy key of its own, taken into every site by a ceremony: of somebody new, or of `person`."""
    texts = {path: data.decode("utf-8") for path, data in peoples_files(fleet.workspace.root).items()}
    folder = fleet.folder / "keys" / name
    texts["settings.toml"] = f'format = 1\nperson = "{name}"\n\n[keys]\nfolder = "{folder}"\ninsecure_storage = true\n'
    init_workspace(fleet.folder / name, files=texts, clock=fleet.clock)
    other = Workspace(fleet.folder / name, fleet.clock, RealFileSystem(), keys=KeyOptions(insecure_storage=True))
    made = make_key(other, NewKeyRequest("deploy", Source.PLAIN_FILE))
    text = Path(made.public_file).read_text(encoding="ascii")
    change(fleet, ChangeRequest("deploy", add=(NewKey(text, name, person=person),)))
    sync(other, folder=str(fleet.workspace.root), new_roots=True)
    return other


def change(fleet: CourierFleet, request: ChangeRequest, at: Workspace | None = None) -> None:
    """A ceremony: two root holders and headquarters sign, a laptop publishes."""
    workspace = at or fleet.workspace
    proposal = sign_with_own_keys(fleet.workspace, make_change(workspace, request))
    proposal = sign_proposal(proposal, root_keys(fleet)[:2], fleet.clock.now_ms())[0]
    publish_proposals(workspace, [proposal])


def root_keys(fleet: CourierFleet) -> list[Ed25519Signer]:
    """The root keys, as if their holders sat here."""
    return [load_key(path.read_bytes()) for path in sorted((fleet.folder / "keys" / "root").glob("*.key"))]


def planned(workspace: Workspace, fleet: CourierFleet, devices: tuple[str, ...], policy: RolloutPolicy = POLICY) -> Rollout:
    """A rollout of the first version that waits for approval."""
    number = workspace.store.registry.versions(MODEL)[0].number
    request = deploy.PlanRequest({MODEL: number}, devices, policy)
    return deploy.plan(workspace.store, workspace.fleet, request, actor="actor-a", now_ms=fleet.clock.now_ms())


def started(workspace: Workspace, fleet: CourierFleet, devices: tuple[str, ...]) -> str:
    """A rollout of the first version that runs in that workspace, whatever it has heard."""
    rollout = planned(workspace, fleet, devices)
    rollout_operations.approve(workspace, rollout_id=rollout.id, unheard=True)
    return rollout.id
