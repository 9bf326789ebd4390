"""Children end when their parent does, however it ends; kept ones do not. Real processes throughout."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from runner.system import processes
from tests.support.clock import wait_until

PARENT = """
import os, sys, time
from pathlib import Path
from runner.system import processes
folder = Path(sys.argv[1])
def go():
    shell = "sleep 600 & echo $$ $! > pids; mv pids children; wait"
    process = processes.start(["sh", "-c", shell], log=folder / "log", keep=sys.argv[2] == "keep")
    (folder / "part").write_text(str(process.pid)); (folder / "part").rename(folder / "supervisor")
{body}
time.sleep(600)
"""


def gone(pids):
    return lambda: all(processes.process_started(pid) is None for pid in pids)


def family(folder):
    """The pids of the supervisor, the command and the command's own child."""
    wait_until(lambda: (folder / "children").exists() and (folder / "supervisor").exists(), "the children")
    return [int((folder / "supervisor").read_text()), *map(int, (folder / "children").read_text().split())]


@pytest.fixture
def parent(tmp_path):
    """Starts a Python process that starts a supervised family, and cleans up after it."""
    started = []

    def begin(body="go()", mode="die"):
        code = PARENT.replace("{body}", body)
        process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path), mode], cwd=tmp_path)
        started.append(process)
        return process, family(tmp_path)

    yield begin
    for process in started:
        process.kill()
        process.wait()
    for file in ("supervisor", "children"):
        for pid in (tmp_path / file).read_text().split() if (tmp_path / file).exists() else []:
            if processes.process_started(int(pid)) is not None:
                os.kill(int(pid), signal.SIGKILL)


def test_output_goes_to_a_private_log_and_the_given_environment_is_used(tmp_path):
    log = tmp_path / "log"
    process = processes.start(["sh", "-c", "echo out $WORD; echo err >&2"], log=log, env={**os.environ, "WORD": "given"})
    wait_until(lambda: not process.alive(), "the end")
    assert process.log_tail() == "out given\nerr"
    assert process.log_tail(1) == "err"
    assert log.stat().st_mode & 0o777 == 0o600


def test_a_missing_command_is_reported_in_the_log(tmp_path):
    process = processes.start(["no-such-program"], log=tmp_path / "log")
    wait_until(lambda: not process.alive(), "the end")
    assert "cannot start no-such-program" in process.log_tail()


def test_a_log_that_cannot_be_written_is_an_os_error(tmp_path):
    with pytest.raises(OSError, match="No such file"):
        processes.start(["true"], log=tmp_path / "nowhere" / "log")


def test_log_tail_without_a_log_is_empty(tmp_path):
    assert processes.attach(1, None, tmp_path / "none").log_tail() == ""


def test_stop_ends_the_whole_group_and_may_be_repeated(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    process = processes.start(["sh", "-c", "sleep 600 & echo $$ $! > pids; mv pids children; wait"], log=tmp_path / "log")
    (tmp_path / "supervisor").write_text(str(process.pid))
    pids = family(tmp_path)
    process.stop()
    assert not process.alive()
    wait_until(gone(pids), "the group to end")
    process.stop()


def test_stop_kills_a_command_that_ignores_sigterm(tmp_path):
    process = processes.start(["sh", "-c", "trap '' TERM; echo up; while :; do sleep 1; done"], log=tmp_path / "log")
    wait_until(lambda: process.log_tail() == "up", "the trap")
    process.stop(timeout_s=0.2)
    assert not process.alive()


def test_processes_that_a_command_leaves_running_end_with_it(tmp_path):
    process = processes.start(["sh", "-c", "sleep 600 & echo $!"], log=tmp_path / "log")
    wait_until(lambda: not process.alive(), "the end")
    wait_until(gone([int(process.log_tail())]), "the rest of the group")


@pytest.mark.parametrize("sig", [signal.SIGKILL, signal.SIGTERM])
def test_children_end_with_their_parent(parent, sig):
    process, pids = parent()
    process.send_signal(sig)
    process.wait()
    wait_until(gone(pids), "the orphans to end")


@pytest.mark.skipif(sys.platform != "linux", reason="the parent-death signal is Linux's")
def test_killing_the_supervisor_kills_the_command(parent):
    _, (supervisor, command, _grandchild) = parent()
    os.kill(supervisor, signal.SIGKILL)
    wait_until(gone([command]), "the command to end")


def test_a_child_outlives_the_thread_that_started_it(parent):
    process, pids = parent("import threading; t = threading.Thread(target=go); t.start(); t.join()")
    wait_until(lambda: os.getpgid(pids[1]) == pids[1], "the group")
    assert all(processes.process_started(pid) is not None for pid in pids)
    process.kill()
    process.wait()
    wait_until(gone(pids), "the orphans to end")


def test_a_fork_of_the_parent_does_not_keep_children_alive(parent, tmp_path):
    body = "go()\npid = os.fork()\nif pid: Path(sys.argv[1], 'fork').write_text(str(pid))"
    process, pids = parent(body)
    wait_until(lambda: (tmp_path / "fork").exists() and (tmp_path / "fork").read_text(), "the fork")
    process.kill()
    process.wait()
    wait_until(gone(pids), "the orphans to end")
    os.kill(int((tmp_path / "fork").read_text()), signal.SIGKILL)


def test_kept_children_outlive_their_parent_and_are_found_again(parent, tmp_path):
    process, pids = parent(mode="keep")
    started = processes.process_started(pids[0])
    process.kill()
    process.wait()
    again = processes.attach(pids[0], started, tmp_path / "log")
    assert again.alive()
    assert not processes.attach(pids[0], started + 1, tmp_path / "log").alive()
    again.stop()
    assert not again.alive()
    wait_until(gone(pids), "the kept family to end")
    again.stop()


def test_many_threads_may_stop_the_same_process(tmp_path):
    process = processes.start(["sleep", "600"], log=tmp_path / "log")
    threads = [threading.Thread(target=process.stop) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not process.alive()


def test_process_started_distinguishes_processes():
    mine = processes.process_started(os.getpid())
    assert mine is not None
    assert mine == processes.process_started(os.getpid())
    assert processes.process_started(2**22 + 1) is None


def test_a_free_port_can_be_bound():
    import socket

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", processes.free_port()))


def test_the_supervisor_script_imports_only_the_standard_library():
    """A folder called runner where the user stands, or a module of the standard library's name, must not matter."""
    code = Path(processes.__file__).read_text()
    assert "import runner" not in code
    assert "from runner" not in code
