"""A device whose agent stands in slots and is started by the launcher, as real processes; and agents newer or broken."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pumpdeck_agent.slots import SlotFiles
from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core.clock import FixedClock
from pumpdeck_fleet.core.files import RealFileSystem
from pumpdeck_fleet.core.receipts import AGENT_RECEIPT_PAYLOAD_TYPE
from pumpdeck_fleet.core.rpc import Op
from pumpdeck_fleet.transports.rpc_client import RpcClient, push_blob
from pumpdeck_packaging.agent_desk import AgentContent, AgentDesk
from pumpdeck_packaging.agent_release import agent_bytes, agent_version
from pumpdeck_packaging.agent_wheels import WheelSet
from pumpdeck_packaging.signing import verify_dsse
from pumpdeck_sample.drills.agents import DIES, ENDS, HANGS, RAISES, breaks_in, other_agent
from support.devices import NOW_MS, Bench

__all__ = ["DIES", "ENDS", "HANGS", "RAISES", "UpgradeBench", "breaks_in", "other_agent", "process_lines"]

class UpgradeBench(Bench):
    """The bench with the agent of this checkout settled in slot a."""

    def __init__(self, folder: Path, confirm_s: float = 45.0, wheels: WheelSet | None = None) -> None:
        super().__init__(folder)
        self.folder = folder
        self.environment = {"PATH": os.environ["PATH"], "PUMPDECK_AGENT_CONFIRM_S": str(confirm_s)}
        self.desk = AgentDesk(folder / "gannet", self.site.trust, RealFileSystem(), FixedClock(NOW_MS))
        self.first = agent_bytes()
        archive = folder / "sent" / "agent.pyz"
        archive.parent.mkdir()
        archive.write_bytes(self.first)
        words = ["settle", "--root", str(self.root), "--sha256", canonical.digest(self.first)]
        words += ["--wheels", str(wheels.folder), "--wheels-sha256", wheels.sha256] if wheels else []
        subprocess.run([sys.executable, "-s", str(archive), *words], check=True, capture_output=True, env=self.environment)

    @property
    def launch(self) -> list[str]:
        """How everything on the device starts the agent."""
        return [sys.executable, "-s", str(self.root / "agent" / "launch.py")]

    def rpc(self) -> RpcClient:
        """A conversation through the launcher."""
        process = subprocess.Popen(
            [*self.launch, "rpc", "--root", str(self.root)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=self.environment,
            bufsize=0,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        sink, source, talk = process.stdin, process.stdout, process.stderr

        def send(data: bytes) -> None:
            view = memoryview(data)
            while view:
                view = view[sink.write(view) or 0 :]

        def close() -> None:
            sink.close()
            process.wait(60)
            source.close()
            talk.close()

        return RpcClient(send, source.read, close=close, name=self.device)

    def ask(self, op: str, fields: Mapping[str, Any] | None = None, body: bytes = b"") -> tuple[dict[str, Any], bytes]:
        """One question in a conversation of its own."""
        channel = self.rpc()
        try:
            header, answer = channel.call(op, fields or {}, body)
            return dict(header), answer
        finally:
            channel.close()

    def hello(self) -> str:
        """The version that answers."""
        return str(self.ask(Op.HELLO, {"console": "test", "workspace": "test"})[0]["agent"])

    def release(self, data: bytes, wheels: Mapping[str, str] | None = None) -> dict[str, bytes]:
        """Release an agent for the site; the files for an `upgrade` request."""
        content = AgentContent(agent_version(data), canonical.digest(data), len(data), wheels or {})
        self.desk.release(content, self.site.keys.release)
        return dict(self.desk.files())

    def push(self, data: bytes) -> None:
        channel = self.rpc()
        push_blob(channel, canonical.digest(data), data)
        channel.close()

    def upgrade(self, files: Mapping[str, bytes]) -> dict[str, Any]:
        listed = [{"name": name, "bytes": len(content)} for name, content in files.items()]
        header, body = self.ask(Op.UPGRADE, {"files": listed}, b"".join(files.values()))
        return {**header, "receipt": self.agent_receipt(body)}

    @contextmanager
    def serving(self) -> Iterator[subprocess.Popen[bytes]]:
        """The scoring service, started by the launcher."""
        (self.root / "serve.json").write_text('{"endpoint":{"is_on":false}}')
        command = [*self.launch, "serve", "--root", str(self.root), "--every-s", "0.1"]
        with (self.folder / "serve.log").open("ab") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log, env=self.environment)
        try:
            yield process
        finally:
            process.terminate()
            process.wait(60)

    def slot_phase(self) -> str:
        """The phase in the newest slot record."""
        record = SlotFiles(self.platform, self.root).load()
        return record.phase.value if record else ""

    def stand(self) -> dict[str, Any]:
        """How the agent stands, with its verified receipt."""
        header, body = self.ask(Op.AGENT)
        return {**header, "receipt": self.agent_receipt(body)}

    def agent_receipt(self, envelope: bytes) -> dict[str, Any] | None:
        if not envelope:
            return None
        keys = {self.identity.key_id: self.identity.public_pem}
        payload = verify_dsse(envelope, AGENT_RECEIPT_PAYLOAD_TYPE, keys, 64 * 1024)
        return dict(canonical.parse_json(payload, "agent receipt", max_bytes=64 * 1024))


def process_lines(pid: int) -> list[str]:
    """The command lines of a process and of its children."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [Path(f"/proc/{one}/cmdline").read_bytes().replace(b"\0", b" ").decode() for one in (str(pid), *children)]
