"""The subcommands of `pumpdeck-agent`. Each imports what it needs when it runs: `serve` must never load what signs or verifies,
and `status` and `rpc` need no numpy (tests/agent/test_imports.py holds the lists).
"""

from __future__ import annotations

import argparse
import contextlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pumpdeck_agent.code_cache import write_cache
from pumpdeck_agent.config import AgentConfig, AgentLimits, Layout, read_config
from pumpdeck_agent.own_command import own_archive
from pumpdeck_agent.platform_here import FileLocks, is_clock_synced
from pumpdeck_agent.platform_port import Platform
from pumpdeck_agent.site_alarms import Acknowledgement, AlarmBoard, load_alarms, request_acknowledge
from pumpdeck_agent.slots import SlotFiles
from pumpdeck_agent.state_files import StateFiles
from pumpdeck_agent.status import device_status, pump_figures
from pumpdeck_agent.trips import clear_trip, read_trips, set_trip, standing_trip
from pumpdeck_agent.veto import lift_veto, set_veto
from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core.clock import HOUR_MS, SystemClock
from pumpdeck_fleet.core.device_status import Veto
from pumpdeck_fleet.core.errors import NotFoundError, PumpdeckError, UsageError
from pumpdeck_fleet.core.files import RealFileSystem, replace_file
from pumpdeck_fleet.core.ports import FileSystem

if TYPE_CHECKING:
    from pumpdeck_agent.agent import Agent

_INPUT_MAX_BYTES = 1024 * 1024


def this_platform() -> Platform:
    """The computer that this process runs on."""
    return Platform(RealFileSystem(), SystemClock(), FileLocks(), is_clock_synced)


def _say(value: Any) -> None:
    sys.stdout.buffer.write(canonical.encode(value) + b"\n")
    sys.stdout.buffer.flush()


def rpc(options: argparse.Namespace) -> int:
    """One conversation with a console on standard input and output."""
    from pumpdeck_agent.agent import Agent
    from pumpdeck_agent.rpc_server import serve_rpc
    from pumpdeck_agent.trial import FreshChildRunner

    agent = Agent(options.root, platform=this_platform(), runner=FreshChildRunner())
    _confirm(agent)
    serve_rpc(agent, sys.stdin.buffer, sys.stdout.buffer)
    return 0


def resume(options: argparse.Namespace) -> int:
    """Recovery and waiting trials, as a process of its own beside `serve`."""
    from pumpdeck_agent.agent import Agent
    from pumpdeck_agent.trial import FreshChildRunner

    agent = Agent(options.root, platform=this_platform(), runner=FreshChildRunner())
    _confirm(agent)
    _say(agent.resume().fields)
    keep_code(agent.platform.fs)
    return 0


def keep_code(fs: FileSystem) -> None:
    """Spare later starts of this archive the compiling. Not worth failing for: on a full disk they go on without."""
    archive = own_archive()
    if archive is not None:
        with contextlib.suppress(OSError):
            write_cache(fs, archive)


def install_from(options: argparse.Namespace) -> int:
    """Take what a stick or a file brings; leave on the stick, or in another file, what this device has to say."""
    from pumpdeck_agent.agent import Agent
    from pumpdeck_agent.install_from import install_from as visit_stick
    from pumpdeck_agent.install_from_tar import install_from_tar
    from pumpdeck_agent.trial import FreshChildRunner
    from pumpdeck_packaging.bundle_stick import real_stick

    agent = Agent(options.root, platform=this_platform(), runner=FreshChildRunner())
    _confirm(agent)
    source: Path = options.folder.absolute()
    if source.is_file():
        answer = options.answer.absolute() if options.answer else None
        visit = install_from_tar(agent, source, answer, make_way=lambda: _make_way(agent))
    elif options.answer:
        raise UsageError("is for a bundle in one file; the answer to a stick lies on the stick", "--answer")
    else:
        visit = visit_stick(agent, real_stick(source), lambda: _make_way(agent))
    _say(visit)
    return visit.exit_code


def _make_way(agent: Agent) -> None:
    """Go on as the agent that is on probation, under the launcher's eyes; where this one was not started by it, do nothing."""
    from pumpdeck_agent.platform_here import become
    from pumpdeck_agent.probation import successor_command

    command = successor_command(SlotFiles(agent.platform, agent.layout.root))
    if command:
        become(command)


def _confirm(agent: Agent) -> None:
    """An agent on probation shows that it works before it takes the first request."""
    from pumpdeck_agent.probation import AgentReceipts, confirm, is_on_probation

    slots = SlotFiles(agent.platform, agent.layout.root)
    if is_on_probation(slots):
        agent.hello("", "")
        confirm(slots, AgentReceipts(agent.config.device, agent.platform))


def check(options: argparse.Namespace) -> int:
    """Say whether this agent works on this device; changes nothing."""
    from pumpdeck_agent.agent import Agent
    from pumpdeck_agent.self_check import check_agent
    from pumpdeck_agent.trial import FreshChildRunner

    runner = FreshChildRunner()
    _say(check_agent(Agent(options.root, platform=this_platform(), runner=runner), runner))
    return 0


def settle(options: argparse.Namespace) -> int:
    """Put this archive into the device's first slot."""
    from pumpdeck_agent.own_command import own_archive
    from pumpdeck_agent.settle import SettleRequest
    from pumpdeck_agent.settle import settle as put_into_slot

    archive = own_archive()
    if archive is None:
        raise UsageError("runs from an archive only", "settle", expected="python3 agent.pyz settle ..")
    wanted = SettleRequest(archive, options.sha256, options.serial, options.wheels, options.wheels_sha256)
    _say(put_into_slot(this_platform(), options.root, wanted))
    return 0


def serve(options: argparse.Namespace) -> int:
    """The scoring loop."""
    from pumpdeck_agent.serve import serve_spool

    return serve_spool(options.root, this_platform(), every_s=options.every_s, is_once=options.once)


def score(options: argparse.Namespace) -> int:
    """Put one file into the spool and score what waits there."""
    from pumpdeck_agent.serve import make_scorer

    platform = this_platform()
    layout = Layout(options.root)
    scorer = make_scorer(platform, layout)
    try:
        data = platform.fs.read_bytes(options.file, AgentLimits().spool_file_max_bytes)
    except FileNotFoundError as error:
        raise NotFoundError("no such file", str(options.file)) from error
    replace_file(platform.fs, layout.spool_in / options.file.name, data)
    _say(scorer.score_spool())
    return 0


def status(options: argparse.Namespace) -> int:
    """The same status that a console gets."""
    platform = this_platform()
    layout = Layout(options.root)
    config = read_config(platform.fs, layout)
    state = StateFiles(platform.fs, layout).load()
    _say(device_status(platform.fs, layout, config, state, platform.clock.now_ms()))
    return 0


def facts(options: argparse.Namespace) -> int:
    """What this computer is."""
    import platform as interpreter
    import shutil

    from pumpdeck_agent.facts import Computer, device_facts
    from pumpdeck_agent.runtime import execution_providers, runtime_version

    world = this_platform()
    read_config(world.fs, Layout(options.root))
    computer = Computer(
        architecture=interpreter.machine(),
        system=sys.platform,
        python=interpreter.python_version(),
        runtime=runtime_version(),
        providers=execution_providers(),
        is_clock_synced=world.is_clock_synced(),
        find_program=shutil.which,
    )
    _say(device_facts(world.fs, Path(options.root.anchor or "/"), options.root, computer))
    return 0


def alarms(options: argparse.Namespace) -> int:
    """The alarms that stand on site, as `serve` announced them."""
    platform = this_platform()
    layout = Layout(options.root)
    read_config(platform.fs, layout)
    standing = AlarmBoard(load_alarms(platform.fs, layout), 0).standing()
    _say({"alarms": standing})
    return 0


def acknowledge(options: argparse.Namespace) -> int:
    """Leave word for `serve` that somebody has seen an alarm."""
    platform = this_platform()
    layout = Layout(options.root)
    read_config(platform.fs, layout)
    request_acknowledge(platform.fs, layout, Acknowledgement(options.pump, options.by))
    _say({"pump": options.pump, "by": options.by})
    return 0


def veto(options: argparse.Namespace) -> int:
    """Set or lift the local veto."""
    platform = this_platform()
    layout = Layout(options.root)
    read_config(platform.fs, layout)
    if options.lift:
        lift_veto(platform.fs, layout)
        _say({"veto": None})
        return 0
    if not options.reason.strip():
        raise UsageError("a veto needs a reason", "veto", hint="or lift it with --lift")
    until_ms = platform.clock.now_ms() + round(options.hours * HOUR_MS) if options.hours > 0 else 0
    set_veto(platform.fs, layout, Veto(options.reason, until_ms))
    _say({"veto": {"reason": options.reason, "until_ms": until_ms}})
    return 0


def trip(options: argparse.Namespace) -> int:
    """Say that a pump is tripped, or that it is not any more."""
    platform = this_platform()
    layout = Layout(options.root)
    pump = read_config(platform.fs, layout).pump(options.pump)
    if pump is None:
        raise NotFoundError("is not a pump of this device", options.pump)
    now_ms = platform.clock.now_ms()
    if options.clear:
        clear_trip(platform.fs, layout, pump.tag, now_ms)
    elif options.reason.strip():
        set_trip(platform.fs, layout, pump.tag, Veto(options.reason, now_ms + round(options.hours * HOUR_MS)))
    else:
        raise UsageError("a trip needs a reason", pump.tag, hint="or end it with --clear")
    seen = pump_figures(platform.fs, layout, read_config(platform.fs, layout)).get(pump.tag)
    standing = standing_trip(seen, read_trips(platform.fs, layout).get(pump.tag.lower()), now_ms)
    _say({"pump": pump.tag, "trip": standing})
    return 0


def init(options: argparse.Namespace) -> int:
    """Enrol: make the root folder and print what the console must know."""
    from pumpdeck_agent.enrol import create_device

    platform = this_platform()
    try:
        config = platform.fs.read_bytes(options.config, _INPUT_MAX_BYTES)
        trusted_root = platform.fs.read_bytes(options.trusted_root, _INPUT_MAX_BYTES)
    except FileNotFoundError as error:
        raise NotFoundError("no such file", str(error.filename)) from error
    parsed = canonical.decode(AgentConfig, config, str(options.config), max_bytes=_INPUT_MAX_BYTES)
    _keep_private(options.root)
    identity = create_device(platform.fs, options.root, parsed, trusted_root)
    keys = {"key_id": identity.key_id, "public_key": identity.public_pem, "age_key": identity.age_key}
    _say({"device": parsed.device, "site": parsed.site, **keys})
    return 0


def _keep_private(root: Path) -> None:
    """Models and readings lie open in this folder: it is for the agent's user alone (docs/adr/0086)."""
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    root.chmod(0o700)


def tuf_client(options: argparse.Namespace) -> int:
    """The verifier behind the command form of tuf-conformance, which knows the exit codes 0 and 1 only."""
    from pumpdeck_agent import tuf_client as client

    try:
        client.run(options)
    except PumpdeckError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


def enrol(options: argparse.Namespace) -> int:
    """Enrol from a stick: a person compares the words of the root with a sheet of paper first."""
    from pumpdeck_agent.enrol_stick import EnrolPlace, enrol_from
    from pumpdeck_fleet.core.words import check_words
    from pumpdeck_packaging.bundle_stick import real_stick

    def agrees(site: str, words: str) -> bool:
        sys.stderr.write(f"Root of {site}: {words}\n")
        if options.root_words:
            check_words(words, options.root_words, f"root of {site}")
        elif not is_confirmed():
            return False
        # Before anything is written there, and not before the person said yes: a wrong root leaves nothing behind.
        _keep_private(options.root)
        return True

    def is_confirmed() -> bool:
        if not sys.stdin.isatty():
            raise UsageError("needs a person who compares the words", "root", hint="give them with --root-words")
        sys.stderr.write("Are these the words on your sheet of paper? Type yes: ")
        sys.stderr.flush()
        return sys.stdin.readline().strip().lower() == "yes"

    platform = this_platform()
    host_keys = tuple(sorted(options.host_keys.glob("ssh_host_*_key.pub")))
    place = EnrolPlace(platform.fs, options.root, platform.clock.now_ms(), host_keys)
    done = enrol_from(real_stick(options.folder.absolute()), place, options.device, agrees)
    sys.stderr.write(f"Key of {done.device}: {done.key_words}\nThe console will show the same words.\n")
    _say(done)
    return 0
