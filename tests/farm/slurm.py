"""A real SLURM on this machine, for a test: two nodes with two CPUs each, all on loopback.

As a program: ``python tests/farm/slurm.py FOLDER`` starts one and says how to use it; it ends with
Ctrl-C. It needs Debian's slurm-wlm and munge::

    apt-get install -y --no-install-recommends slurm-wlm munge
"""

from __future__ import annotations

import getpass
import os
import secrets
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

SYSTEM_FOLDERS = "/usr/sbin:/usr/local/sbin:/sbin"  # not in everybody's PATH
NEEDED = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol", "squeue", "scancel")
NODES = ("n1", "n2")
WAIT = 30.0  # s that a daemon may take to come up

# What asks for jobs' states is sacct, which wants a database. This one asks the controller.
SACCT = """#!/bin/sh
jobs=
while [ $# -gt 0 ]; do
  if [ "$1" = -j ]; then jobs="$jobs${jobs:+,}$2"; shift; fi
  shift
done
echo "JobID|State|NodeList"
exec squeue --noheader --array --states=all --format="%i|%T|%N" ${jobs:+--jobs="$jobs"}
"""


def missing() -> list[str]:
    """The programs that are not installed."""
    path = f"{os.environ['PATH']}:{SYSTEM_FOLDERS}"
    return [name for name in NEEDED if shutil.which(name, path=path) is None]


class Slurm:
    """munged, slurmctld and two slurmd below `folder`, from `start` to `stop`.

    folder : short (Unix sockets lie there) and without blanks, commas and equal signs.
    environment : the variables with which srun, sbatch and the like talk to it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {
            "SLURM_CONF": str(folder / "slurm.conf"),
            "PATH": f"{folder / 'bin'}:{os.environ['PATH']}:{SYSTEM_FOLDERS}",
        }
        self._daemons: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        """Start all of it; when it returns, jobs can be submitted."""
        for name in ("bin", "state", *NODES):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        key = self.folder / "munge.key"
        key.touch(mode=0o600)  # munged takes no other
        key.write_bytes(secrets.token_bytes(128))
        sacct = self.folder / "bin" / "sacct"
        sacct.write_text(SACCT)
        sacct.chmod(sacct.stat().st_mode | stat.S_IXUSR)
        (self.folder / "slurm.conf").write_text(self._configuration())
        socket_path = self.folder / "munge.sock"
        files = [
            f"--{name}-file={self.folder / f'munge.{name}'}"
            for name in ("key", "pid", "log", "seed")
        ]
        # --force: it is wary of sockets in private folders.
        self._spawn("munged", "--foreground", "--force", f"--socket={socket_path}", *files)
        self._await("munged", lambda: self._ask("munge", "-n", "-S", str(socket_path)))
        self._spawn("slurmctld", "-D")
        for node in NODES:
            self._spawn("slurmd", "-D", "-N", node)
        self._await(
            "the nodes",
            lambda: {*self._ask("sinfo", "-h", "-N", "-t", "idle", "-o", "%N").split()} == {*NODES},
        )

    def stop(self) -> None:
        """End all jobs and all daemons."""
        with suppress(subprocess.SubprocessError, AssertionError):
            if self._ask("squeue", "-h", "-r", "-o", "%i").strip():
                # While the nodes live: what runs a job's steps outlives them.
                self._ask("scancel", "--user", getpass.getuser())
                self._await("the jobs' end", lambda: not self._ask("squeue", "-h").strip())
        for daemon in reversed(self._daemons):
            daemon.terminate()
            try:
                daemon.wait(10)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()
        self._daemons.clear()

    def ask(self, *command: str) -> str:
        """What a SLURM program says; raises CalledProcessError where it fails."""
        done = subprocess.run(
            command,
            env=os.environ | self.environment,
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
        return done.stdout

    def _ask(self, *command: str) -> str:
        try:
            return self.ask(*command)
        except subprocess.CalledProcessError:
            return ""

    def _spawn(self, *command: str) -> None:
        log = self.folder / f"daemon-{len(self._daemons)}-{command[0]}.log"
        with log.open("ab") as stream:
            self._daemons.append(
                subprocess.Popen(
                    command,
                    env=os.environ | self.environment,
                    stdin=subprocess.DEVNULL,
                    stdout=stream,
                    stderr=stream,
                    start_new_session=True,
                )
            )

    def _await(self, what: str, condition: Callable[[], object]) -> None:
        end = time.monotonic() + WAIT
        while not condition():
            dead = [daemon.args for daemon in self._daemons if daemon.poll() is not None]
            assert not dead, f"{dead} ended; see the logs in {self.folder}"
            assert time.monotonic() < end, f"no {what} in {WAIT:g} s; see the logs in {self.folder}"
            time.sleep(0.1)

    def _configuration(self) -> str:
        host = socket.gethostname().split(".")[0]
        ports = _free_ports(1 + len(NODES))
        lines = [
            "ClusterName=farm",
            f"SlurmctldHost={host}(127.0.0.1)",
            f"SlurmctldPort={ports[0]}",
            f"SlurmUser={getpass.getuser()}",
            f"SlurmdUser={getpass.getuser()}",
            # A requeued job waits until its credential has expired, two minutes by default.
            f"AuthInfo=socket={self.folder / 'munge.sock'},cred_expire=5",
            f"StateSaveLocation={self.folder / 'state'}",
            f"SlurmdSpoolDir={self.folder}/%n",
            f"SlurmctldPidFile={self.folder / 'slurmctld.pid'}",
            f"SlurmdPidFile={self.folder}/%n.pid",
            # No cgroups, which containers lack.
            "ProctrackType=proctrack/linuxproc",
            "TaskPlugin=task/none",
            "SelectType=select/cons_tres",
            "SelectTypeParameters=CR_Core",
            # More CPUs and memory than there may be.
            "SlurmdParameters=config_overrides",
            "SchedulerParameters=sched_interval=1,bf_interval=1",
            "KillWait=5",
            "MinJobAge=86400",  # s that ended jobs stay known, for our sacct
            "ReturnToService=2",
            "MailProg=/bin/true",
            # submitit finds results by a job's number, which a second SLURM must not use again.
            f"FirstJobId={int(time.time()) % 60_000_000 + 1}",
            "PreemptType=preempt/partition_prio",
            "PreemptMode=REQUEUE",
            # Else a job hears of its preemption by SIGTERM alone.
            "SlurmctldParameters=preempt_send_user_signal",
        ]
        for node, port in zip(NODES, ports[1:], strict=True):
            lines.append(
                f"NodeName={node} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs=2 "
                "RealMemory=8000"
            )
        with suppress(OSError):
            if socket.gethostbyname(host) == "127.0.0.1":
                # Listen there alone; where the name means another address, nobody would.
                lines.append("CommunicationParameters=NoCtldInAddrAny,NoInAddrAny")
        nodes = ",".join(NODES)
        lines += [
            f"PartitionName=main Nodes={nodes} Default=YES PriorityTier=1 GraceTime=10",
            f"PartitionName=urgent Nodes={nodes} PriorityTier=9 PreemptMode=OFF",
        ]
        return "\n".join(lines) + "\n"


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    try:
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


def main(folder: str) -> None:
    """Run one until Ctrl-C."""
    if absent := missing():
        sys.exit(f"not installed: {', '.join(absent)}; see the top of {__file__}")
    slurm = Slurm(Path(folder).absolute())
    try:
        slurm.start()
        print(*(f"export {name}='{value}'" for name, value in slurm.environment.items()), sep="\n")
        sys.stdout.flush()
        signal.pause()
    except KeyboardInterrupt:
        pass
    finally:
        slurm.stop()


if __name__ == "__main__":
    main(sys.argv[1])
