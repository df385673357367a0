"""`pumpdeck demo`: a sample fleet that lives on this computer."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import click

from pumpdeck_console.cli.lazy import WorkspaceCommand
from pumpdeck_console.cli.output import json_option, say
from pumpdeck_console.cli.session import ConsoleWanted, ProgressLine, Session
from pumpdeck_fleet.core.clock import parse_ms
from pumpdeck_fleet.core.errors import EXIT_DEFECT, PumpdeckError, UsageError

if TYPE_CHECKING:
    from pumpdeck_console.demo.home import DemoHome, DemoSize

DEMO_NAME = "pumpdeck-demo"
KEEPER = "pumpdeck_console.demo.keeper"
END_TIMEOUT_S = 20.0


@click.command(cls=WorkspaceCommand)
@click.option(
    "--no-tui", is_flag=True, help="Run the whole loop once and print what was found, instead of the console."
)
@click.option("--sites", default=12, show_default=True, help="Sites of a new demo (1-12).")
@click.option("--devices", default=5, show_default=True, help="Devices at each site.")
@click.option("--pumps", default=4, show_default=True, help="Pumps beside each device.")
@click.option("--seed", default=1, show_default=True, help="Seed of everything random in a new demo.")
@click.option("--end", default="", metavar="TIME", help="Last row of a new demo's history; default the last full hour.")
@json_option
@click.pass_obj
def demo(
    session: Session, no_tui: bool, sites: int, devices: int, pumps: int, seed: int, end: str, as_json: bool
) -> int | ConsoleWanted:
    """Open the console on a sample fleet with simulated devices.

    The fleet is made first, and models are brought to its devices.
    The devices speak real SSH on loopback and run the real agent. A second run takes up the same fleet. Its keys are
    throwaway keys in 0600 files beside the workspace: good for looking around, never for a real fleet.
    """
    from pumpdeck_console.demo.home import DemoHome, DemoSize  # deferred with the demo

    home, size = DemoHome(_folder(session)), DemoSize(sites, devices, pumps, seed)
    end_ms = parse_ms(end, "--end") if end else 0
    if no_tui:
        return _run_loop(home, size, end_ms, as_json)
    if as_json:
        raise UsageError("belongs to --no-tui", "--json")
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise UsageError("the console needs a terminal", "demo", hint="add --no-tui to run the loop once")
    return _open(home, size, end_ms)


def _folder(session: Session) -> Path:
    from pumpdeck_console.wiring import WORKSPACE_ENV  # deferred with the demo

    if session.path is not None:
        return session.path.resolve()
    if os.environ.get(WORKSPACE_ENV):
        return Path(os.environ[WORKSPACE_ENV]).resolve()
    import platformdirs  # deferred: most calls name the folder

    return Path(platformdirs.user_data_dir(DEMO_NAME, appauthor=False))


def _run_loop(home: DemoHome, size: DemoSize, end_ms: int, as_json: bool) -> int:
    from pumpdeck_console.demo.run import DemoOptions, run_loop  # deferred: numpy, TUF, SSH and the trainer
    from pumpdeck_fleet.core.clock import SystemClock
    from pumpdeck_fleet.core.files import RealFileSystem

    with ProgressLine() as progress:
        summary = run_loop(home, DemoOptions(size, end_ms), RealFileSystem(), SystemClock(), progress, on_started=say)
    if as_json:
        click.echo(json.dumps(summary, indent=1))
    else:
        _write_summary(summary)
    return 0 if summary["ok"] else EXIT_DEFECT


def _write_summary(summary: dict[str, Any]) -> None:
    for name, step in summary["steps"].items():
        problems = step["evidence"]["problems"]
        click.echo(f"{'ok ' if step['ok'] else 'BAD'}  {name:9}{_figures(step['evidence'])}")
        for problem in problems[:5]:
            click.echo(f"     {problem}")
        if len(problems) > 5:
            click.echo(f"     and {len(problems) - 5} more; see --json")
    say(f"Workspace {summary['workspace']}, devices {summary['devices']}; {summary['keys']}")


def _figures(evidence: dict[str, Any]) -> str:
    """The plain figures of a step, in one line."""
    plain = {key: value for key, value in evidence.items() if isinstance(value, (int, float, str))}
    return "  ".join(f"{key} {str(value)[:20]}" for key, value in plain.items())


@dataclass(slots=True)
class _Keeper:
    """The process that keeps the demo alive."""

    process: subprocess.Popen[bytes]
    log: IO[bytes]

    def wait_open(self) -> None:
        """Show its progress until the console may open.

        Raises:
            PumpdeckError: it could not make or take up the demo.
        """
        assert self.process.stdout is not None
        with ProgressLine() as progress:
            for line in self.process.stdout:
                said = json.loads(line)
                if said["event"] == "open":
                    return
                if said["event"] == "error":
                    raise _rebuilt(said)
                progress(said["step"], said["done"], said["total"])
        raise PumpdeckError("the demo ended before it could open", self.log.name, hint="its last lines say why")

    def close(self) -> None:
        """Let it end its devices."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        try:
            self.process.wait(END_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()
        self.log.close()


def _rebuilt(said: dict[str, Any]) -> PumpdeckError:
    words = {key: said.get(key) or None for key in ("expected", "found")}
    error = PumpdeckError(said["what"], said.get("which", ""), hint=said.get("hint", ""), **words)
    error.exit_code = int(said["exit_code"])
    return error


def _open(home: DemoHome, size: DemoSize, end_ms: int) -> ConsoleWanted:
    from pumpdeck_fleet.core.files import RealFileSystem

    fs = RealFileSystem()
    mark = home.read_mark(fs)
    is_ready = mark is not None and mark.is_ready and home.is_whole(mark, fs)
    keeper = _start_keeper(home, size, end_ms)

    def end() -> None:
        say("Ending the simulated devices.")
        keeper.close()

    try:
        if not is_ready:
            say("Making a sample fleet. Its keys are throwaway keys in 0600 files: never use them for a real fleet.")
            keeper.wait_open()
    except BaseException:
        end()
        raise
    return ConsoleWanted(home.workspace, end)


def _start_keeper(home: DemoHome, size: DemoSize, end_ms: int) -> _Keeper:
    home.beside.parent.mkdir(parents=True, exist_ok=True)
    log = home.workspace.with_name(home.workspace.name + "-demo.log").open("ab")
    sizes = [str(size.sites), str(size.devices_per_site), str(size.pumps_per_device), str(size.seed)]
    command = [sys.executable, "-m", KEEPER, "--workspace", str(home.workspace), "--end-ms", str(end_ms)]
    process = subprocess.Popen([*command, "--size", *sizes], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log)
    return _Keeper(process, log)
