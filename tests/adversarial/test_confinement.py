"""Plans run without network, programs, other processes or files of others (docs/threat-model.md: confinement).

Each attack is run twice: once in an ordinary process, where it must succeed, or it would prove nothing; and once as a
plan, where it must fail.
"""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from contextlib import suppress
from pathlib import Path

import pytest

from appliance.protocol.errors import Code
from appliance.protocol.local.jobs import Limits
from appliance.protocol.local.runner_client import RunnerError
from tests.integration.network.hosts import wait_until
from tests.runners import SECRET, Runner, plan_with, write_table, zeros

SYSCALL = """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
def call(*arguments):
    result = libc.syscall(*(ctypes.c_long(a) if isinstance(a, int) else a for a in arguments))
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result
"""

# Each reaches its end when it succeeds. FOLDER is the hospital's folder; the numbers are x86-64's.
ATTACKS = {
    "tcp": "import socket; socket.socket(socket.AF_INET, socket.SOCK_STREAM)",
    "tcp6": "import socket; socket.socket(socket.AF_INET6, socket.SOCK_STREAM)",
    "udp": "import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM)",
    "unix": "import socket; socket.socket(socket.AF_UNIX, socket.SOCK_STREAM).connect(FOLDER + '/runner.sock')",
    "netlink": "import socket; socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)",
    "socketpair": "import socket; socket.socketpair()",
    "io_uring": SYSCALL + "call(425, 4, ctypes.create_string_buffer(120))",
    "other-dataset": "open(FOLDER + '/data/south.csv').read()",
    "list-of-datasets": "import os; os.listdir(FOLDER + '/data')",
    "key": "open(FOLDER + '/keys/identity.pem').read()",
    "system-file": "open('/etc/passwd').read()",
    "processes-of-others": "open('/proc/1/cmdline').read()",
    "environment": "import os; os.environ['FEDWARD_SECRET']",
    "environment-of-its-past": "assert b'not-for-plans' in open('/proc/self/environ', 'rb').read()",
    "environment-in-memory": SYSCALL
    # Where the kernel laid it out, behind the arguments; a call finds the end where a look would be death.
    + "r, w = os.pipe()\nat = ctypes.c_void_p.in_dll(libc, 'program_invocation_name').value\n"
    + "while libc.write(w, ctypes.c_void_p(at), 16) == 16: at += 16\n"
    + "assert b'not-for-plans' in os.read(r, 1 << 16)",
    "write-outside": "open(FOLDER + '/data/new.csv', 'w')",
    "write-dataset": "open(FOLDER + '/data/north.csv', 'a')",
    "truncate-dataset": "import os; os.truncate(FOLDER + '/victims/truncate', 0)",
    "truncate-by-reading": "import os; os.open(FOLDER + '/victims/read', os.O_RDONLY | os.O_TRUNC)",
    "delete": "import os; os.unlink(FOLDER + '/victims/delete')",
    "change-mode": "import os; os.chmod(FOLDER + '/victims/mode', 0o666)",
    "set-times": "import os; os.utime(FOLDER + '/victims/mode', (1, 1))",
    "hard-link": "import os, tempfile; os.link(FOLDER + '/victims/mode', tempfile.mkdtemp() + '/link')",
    "temporary-folder": "open('/tmp/fedward-test-' + str(__import__('os').getpid()), 'w')",
    "shared-memory": "open('/dev/shm/fedward-test-' + str(__import__('os').getpid()), 'w')",
    "system-v-memory": SYSCALL + "call(29, 0, 4096, 0o1600)",
    "program": "import subprocess; subprocess.run(['/bin/true'], check=True)",
    "fork": "import os; os.fork() or os._exit(0)",
    "vfork": "import os; os.waitpid(os.posix_spawn('/bin/true', ['true'], {}), 0)",
    "signal": "import os; os.kill(os.getppid(), 0)",
    "signal-own-group": "import os; os.kill(0, 0)",
    "signal-by-a-pipe": "import fcntl, os; fcntl.fcntl(os.pipe()[0], fcntl.F_SETOWN, os.getppid())",
    "signal-by-a-pipe-upper-half": SYSCALL + "call(72, os.pipe()[0], 8 | 1 << 32, os.getppid())",
    "signal-of-choice-by-a-pipe": "import fcntl, os; fcntl.fcntl(os.pipe()[0], fcntl.F_SETSIG, 9)",
    "limits-of-parent": "import os, resource; resource.prlimit(os.getppid(), resource.RLIMIT_NOFILE)",
    "priority-of-others": "import os; os.setpriority(os.PRIO_USER, 0, os.getpriority(os.PRIO_PROCESS, 0))",
    "pidfd": "import os; os.pidfd_open(os.getppid())",
    "ptrace": SYSCALL + "call(101, 0, 0, 0, 0)",
    "memory-of-processes": SYSCALL
    + "b = ctypes.create_string_buffer(8)\nv = (ctypes.c_size_t * 2)(ctypes.addressof(b), 8)\n"
    + "call(310, os.getpid(), v, 1, v, 1, 0)",
    "keyring": SYSCALL + "call(250, 0, -3, 0)",
    "userfaultfd": SYSCALL + "call(323, 1)",
    "namespace": SYSCALL + "call(272, 0x10000000)",
    "perf": SYSCALL + "a = ctypes.create_string_buffer(128)\na[0:8] = b'\\x01\\0\\0\\0\\x80\\0\\0\\0'\na[40] = 0x60\n"
    "call(298, a, 0, -1, -1, 0)",
    "watch-files": SYSCALL + "call(254, call(294, 0), ctypes.c_char_p(b'/etc'), 2)",
    "outlive-supervisor": SYSCALL + "call(157, 1, 0, 0, 0, 0)",
    "outlive-supervisor-upper-half": SYSCALL + "call(157, 1 | 1 << 32, 0, 0, 0, 0)",
    "clone3": SYSCALL + "a = (ctypes.c_uint64 * 8)(0, 0, 0, 0, 17)\ncall(435, a, 64) or os._exit(0)",
}
# How a denied attack ends: refused, as unknown as on an older kernel, or without anything to find.
REASONS = ("PermissionError", "Function not implemented", "KeyError: 'FEDWARD_SECRET'", "AssertionError")


def code_of(attack: str, runner: Runner) -> str:
    """The attack's statements, aimed at this runner's folder."""
    return f"FOLDER = {str(runner.folder)!r}\n{ATTACKS[attack]}"


def lay_out_victims(runner: Runner) -> None:
    """Files that an attack may find and spoil; anew for each run, for the first may have spoilt them."""
    for name in ("truncate", "read", "delete", "mode"):
        path = runner.folder / "victims" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("whole")
        path.chmod(0o600)


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_plan_cannot(runner: Runner, attack: str) -> None:
    """What an ordinary process of this user can do, a plan cannot."""
    code = code_of(attack, runner)
    environment = {"FEDWARD_SECRET": SECRET}
    lay_out_victims(runner)
    free = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    if free.returncode != 0:
        pytest.skip(f"nobody can do this here: {free.stderr.strip().splitlines()[-1]}")

    lay_out_victims(runner)
    error = runner.failure(plan_with(code))

    assert error.code in (Code.TRAINING_FAILED, Code.SANDBOX_DENIED)
    assert any(reason in error.record.splitlines()[-1] for reason in REASONS)


# Each asks for its own id: x32 by a number of its own, i386 by its old gate.
FOREIGN = {
    "x32": SYSCALL + "libc.syscall(ctypes.c_long(0x40000000 + 39))",
    "i386": "import ctypes, mmap\nm = mmap.mmap(-1, 4096, prot=7); m.write(b'\\xb8\\x14\\0\\0\\0\\xcd\\x80\\xc3')\n"
    "at = ctypes.addressof(ctypes.c_char.from_buffer(m)); assert ctypes.CFUNCTYPE(ctypes.c_long)(at)() > 0",
}


@pytest.mark.parametrize("abi", FOREIGN)
def test_a_foreign_calling_convention_is_death(runner: Runner, abi: str) -> None:
    """Another ABI numbers its calls differently, and would walk past every rule."""
    code = FOREIGN[abi]
    if subprocess.run([sys.executable, "-c", code], check=False).returncode != 0:
        pytest.skip(f"this kernel has no {abi}")

    error = runner.failure(plan_with(code))

    assert error.message == "The training process was ended by SIGSYS."


# What no Landlock, or an old one, knows of.
BY_SECCOMP = (
    "tcp", "tcp6", "udp", "unix", "netlink", "socketpair", "io_uring", "system-v-memory", "program", "fork", "vfork",
    "truncate-dataset", "truncate-by-reading", "change-mode", "set-times", "hard-link", "signal", "signal-own-group",
    "signal-by-a-pipe", "signal-by-a-pipe-upper-half", "signal-of-choice-by-a-pipe", "limits-of-parent",
    "priority-of-others", "pidfd", "ptrace", "memory-of-processes", "keyring", "userfaultfd", "namespace", "perf",
    "watch-files", "outlive-supervisor", "outlive-supervisor-upper-half", "clone3",
)  # fmt: skip
CONFINES_ITSELF = """
import os, sys
from appliance.protocol.local.jobs import Limits, SandboxLevel
from appliance.runner.sandbox import confine
from appliance.runner.wire import Start
level = SandboxLevel(seccomp=True)
confine(Start(supervisor_pid=os.getppid(), scratch=SCRATCH, readable=(), limits=Limits(), level=level))
for name, code in ATTACKS.items():
    try:
        exec(code, {})
        print("REACHED", name, flush=True)
    except OSError as error:
        print("kept from", name, error.errno, flush=True)
"""


def test_seccomp_alone_holds_what_an_older_landlock_does_not_know(runner: Runner, tmp_path: Path) -> None:
    """The level 'partial': whatever the kernel's Landlock, no network, no program and no other process."""
    lay_out_victims(runner)
    attacks = {name: code_of(name, runner) for name in BY_SECCOMP}
    code = f"SCRATCH, ATTACKS = {str(tmp_path)!r}, {attacks!r}\n{CONFINES_ITSELF}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)

    assert [line.split()[2] for line in done.stdout.splitlines() if line.startswith("kept")] == list(BY_SECCOMP), done


def test_a_child_has_no_descriptor_but_its_own(runner: Runner) -> None:
    """Nothing of the nursery's, the supervisor's, or of an experiment before it."""
    leaves = "self.left = [os.memfd_create('left') for n in range(9)]"
    runner.train(plan_with(leaves, "import os"), experiment="leaves").close()
    code = """
for fd in range(1024):
    try: print(fd, stat.filemode(os.fstat(fd).st_mode)[0])
    except OSError: pass
"""
    with runner.train(plan_with(code, "import os, stat"), training_args={"num_updates": 1}) as result:
        lines = result.reply.record.splitlines()

    # Nothing to read; twice the record; the channel; the parameters, as they came and as they are read.
    assert lines == ["0 c", "1 p", "2 p", "3 s", "4 -", "5 -"]


def test_a_call_of_a_later_kernel_does_not_exist(runner: Runner) -> None:
    """What is invented after this release must not be open by default."""
    error = runner.failure(plan_with(SYSCALL + "call(700)"))

    assert "Function not implemented" in error.record


def test_a_plan_with_processes_cannot_leave_its_session(runner: Runner) -> None:
    """The session is how a stop finds them all."""
    code = "import os\nif os.fork() == 0:\n    try: os.setsid(); print('free')\n    except OSError: print('held')\n    "
    code += "os._exit(not os.sys.stdout.flush())\nos.wait()"
    assert "free" in subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout

    with runner.train(plan_with(code), limits=Limits(seconds=30.0, processes=4)) as result:
        assert "held" in result.reply.record
        assert "free" not in result.reply.record


def test_an_attack_on_the_scratch_of_another_experiment_fails(runner: Runner) -> None:
    """What one plan wrote down is none of another's business."""
    runner.train(plan_with("open('notes', 'w').write('mine')"), experiment="owner").close()
    (notes,) = (runner.folder / "scratch").rglob("notes")

    error = runner.failure(plan_with(f"open({str(notes)!r}).read()"))

    assert "PermissionError" in error.record


def test_a_plan_may_use_its_scratch_and_threads(runner: Runner) -> None:
    """Confinement that breaks honest plans is switched off by tired people."""
    code = textwrap.dedent(
        """
        import os, tempfile, threading, numpy, random, uuid, time
        with tempfile.TemporaryDirectory() as folder:
            numpy.save(folder + "/a.npy", numpy.ones(3)); numpy.load(folder + "/a.npy")
            os.rename(folder + "/a.npy", folder + "/b.npy")
        worker = threading.Thread(target=os.urandom, args=(8,)); worker.start(); worker.join()
        uuid.uuid4(); time.localtime(); os.cpu_count()
        torch.save(self.model().state_dict(), "model.pt")
        """
    )
    with runner.train(plan_with(code)) as result:
        assert result.reply.sample_count > 0


def test_memory_is_bounded(runner: Runner) -> None:
    """A plan that eats the machine stops the hospital's node."""
    limits = Limits(seconds=30.0, memory_bytes=200 << 20)
    error = runner.failure(plan_with("hold = bytearray(1 << 30)"), limits=limits)

    assert error.code is Code.RUNNER_LIMIT


def test_tensors_count_as_memory(runner: Runner) -> None:
    """PyTorch says in its own way that there is none left."""
    limits = Limits(seconds=30.0, memory_bytes=200 << 20)
    error = runner.failure(plan_with("hold = torch.ones(1 << 28)"), limits=limits)

    assert error.code is Code.RUNNER_LIMIT


def test_shared_memory_is_bounded(runner: Runner) -> None:
    """The kernel's limit does not count it, so the supervisor does."""
    code = "m = mmap.mmap(-1, 1 << 30)\nfor at in range(0, 1 << 30, 4096): m[at] = 1\ntime.sleep(30)"
    limits = Limits(seconds=30.0, memory_bytes=200 << 20)
    error = runner.failure(plan_with(code, "import mmap, time"), limits=limits)

    assert (error.code, error.message) == (Code.RUNNER_LIMIT, "The training process passed its limit of memory.")


def test_disk_is_bounded(runner: Runner) -> None:
    """A full disk stops everything else of the node."""
    code = "for n in range(10): open(str(n), 'wb').write(bytes(10 << 20))\ntime.sleep(30)"
    error = runner.failure(plan_with(code, "import time"), limits=Limits(seconds=30.0, file_bytes=20 << 20))

    assert (error.code, error.message) == (Code.RUNNER_LIMIT, "The training process passed its limit of disk.")


# Sixty megabytes each, in files that no folder names.
NAMELESS = {
    "deleted while it is open": ("disk", "f = open('x', 'wb', 0); os.unlink('x')\nfill(f.write)"),
    "never named": ("disk", "fd = os.open('.', os.O_TMPFILE | os.O_RDWR)\nfill(lambda part: os.write(fd, part))"),
    "mapped and deleted": (  # by the C library: Python's own mapping keeps the file open
        "disk",
        (
            "fd = os.open('x', os.O_CREAT | os.O_RDWR); os.ftruncate(fd, 60 << 20)\n"
            "libc = ctypes.CDLL(None); libc.mmap.restype = ctypes.c_void_p\n"
            "at = libc.mmap(None, ctypes.c_size_t(60 << 20), 3, 1, fd, ctypes.c_long(0))\n"
            "os.close(fd); os.unlink('x'); ctypes.memset(ctypes.c_void_p(at), 1, 60 << 20)"
        ),
    ),
    "of memory": (
        "memory",
        "a, b = map(os.memfd_create, 'ab')\nfill(lambda part: os.write(a, part) + os.write(b, part))",
    ),
}


@pytest.mark.parametrize("kind", NAMELESS)
def test_files_without_a_name_are_bounded(runner: Runner, kind: str) -> None:
    """They take their space until whoever holds them dies, and no look into a folder finds them."""
    what, code = NAMELESS[kind]
    fill = "def fill(write):\n    for n in range(60): write(bytes(1 << 20))\n"
    limits = Limits(seconds=30.0, file_bytes=20 << 20, memory_bytes=(1 << 30) if what == "disk" else 80 << 20)
    error = runner.failure(plan_with(fill + code + "\ntime.sleep(60)", "import ctypes, os, time"), limits=limits)

    assert (error.code, error.message) == (Code.RUNNER_LIMIT, f"The training process passed its limit of {what}.")


def test_a_child_does_not_keep_what_it_took_in_its_last_moment(runner: Runner) -> None:
    """Between two looks a disk can be filled; idle, a child would hold it for minutes."""
    code = "f = open('x', 'wb', 0); os.unlink('x'); self.kept = f\nfor n in range(60): f.write(bytes(1 << 20))"
    limits = Limits(seconds=30.0, file_bytes=20 << 20)
    before = runner.children()
    with suppress(RunnerError):  # or a look came in time
        runner.train(plan_with(code, "import os"), experiment="takes", limits=limits).close()

    wait_until(lambda: {*runner.children()} <= {*before})
    assert not runner.client.stop("takes").was_running


def test_the_number_of_files_is_bounded(runner: Runner) -> None:
    """Empty files fill a disk's table of files."""
    code = "for n in range(20_000): open(str(n), 'w').close()\ntime.sleep(30)"
    error = runner.failure(plan_with(code, "import time"))

    assert error.message == "The training process passed its limit of disk."


def test_processes_are_bounded(runner: Runner) -> None:
    """A fork bomb within what was allowed ends at what was allowed."""
    code = "for n in range(40):\n    if os.fork() == 0: time.sleep(30); os._exit(0)\ntime.sleep(30)"
    error = runner.failure(plan_with(code, "import os, time"), limits=Limits(seconds=30.0, processes=4))

    assert error.code is Code.RUNNER_LIMIT
    assert not [child for child in runner.children() if child.is_running() and child.status() == "sleeping"]


def test_a_folder_as_deep_as_it_goes_is_wiped(runner: Runner) -> None:
    """Cleaning up must not fall over what a plan has built."""
    code = "for n in range(3000): os.mkdir('d'); os.chdir('d')"
    runner.failure(plan_with(code + "\nraise ValueError", "import os"), experiment="deep")

    assert not list((runner.folder / "scratch").glob("*/d"))
    runner.client.hello()


@pytest.mark.parametrize(
    "forged",
    [
        '{"kind": "crashed", "job_id": JOB, "code": "TRAINING_FAILED", "message": "patient 17"}',
        '{"kind": "crashed", "job_id": JOB, "code": "TRAINING_FAILED", "exception": "patient 17"}',
        '{"kind": "failed", "job_id": JOB, "code": "TRAINING_FAILED", "message": "patient 17"}',
    ],
)
def test_a_forged_answer_carries_no_text(runner: Runner, forged: str) -> None:
    """A plan shares its process with our code and can write on its channel."""
    job = runner.job()
    text = forged.replace("JOB", f'"{job.job_id}"')
    code = f"text = {text!r}.encode()\nos.write(3, len(text).to_bytes(4, 'big') + bytes(1) + text)\ntime.sleep(30)"
    error = runner.failure(plan_with(code, "import os, time"), job_id=job.job_id)

    assert "patient" not in error.message
    assert error.code is Code.TRAINING_FAILED


@pytest.mark.parametrize("garbage", ["b'\\xff' * 9", "b'\\0\\0\\0\\2\\0{}'", "b'\\0\\0\\0\\1\\4x'"])
def test_garbage_from_a_child_ends_only_that_child(runner: Runner, garbage: str) -> None:
    """The supervisor serves other experiments."""
    error = runner.failure(plan_with(f"os.write(3, {garbage})\ntime.sleep(30)", "import os, time"))

    assert error.code is Code.TRAINING_FAILED
    runner.train().close()


def test_an_update_that_can_still_change_is_refused(runner: Runner) -> None:
    """Otherwise a plan could swap the tensors after the warden has looked at them."""
    code = "import appliance.runner.job as job, os\njob.write_update = lambda *_: os.memfd_create('open')"
    error = runner.failure(plan_with(code))

    assert (error.code, error.message) == (
        Code.TRAINING_FAILED,
        "The training process broke the rules of its channel.",
    )


def test_a_file_in_place_of_an_update_is_refused(runner: Runner) -> None:
    """A descriptor from a plan could be anything that the warden would then read."""
    code = "import appliance.runner.job as job, os\njob.write_update = lambda *_: os.open('x', os.O_CREAT | os.O_RDWR)"
    error = runner.failure(plan_with(code))

    assert error.message == "The training process broke the rules of its channel."


def test_a_number_too_large_to_be_a_count_is_refused(runner: Runner) -> None:
    """A long enough number is a text."""
    code = "import appliance.training.plan as plan\nplan.TrainOutcome.__init__ = lambda self, *_: "
    code += "object.__setattr__(self, 'sample_count', 10**300)"
    error = runner.failure(plan_with(code))

    assert error.code is Code.TRAINING_FAILED


def test_a_flood_of_output_is_cut(runner: Runner) -> None:
    """The record keeps beginning and end; the supervisor's memory stays flat."""
    code = "print('begin'); print('x' * 5_000_000); print('end')"
    with runner.train(plan_with(code)) as result:
        record = result.reply.record
    assert record.startswith("begin")
    assert record.endswith("end\n")
    assert len(record) <= 1 << 18


def test_a_flood_of_progress_is_thinned(runner: Runner) -> None:
    """Progress may carry a number each: a thousand a second would carry a dataset."""
    code = """
import json, os
if not hasattr(self, "flooded"):
    self.flooded = True
    text = json.dumps({"kind": "progress", "job_id": JOB, "iteration": 1, "iterations": 2}).encode()
    for n in range(1000): os.write(3, len(text).to_bytes(4, "big") + bytes(1) + text)
"""
    job = runner.job()
    job = job.model_copy(update={"plan_source": plan_with(code.replace("JOB", repr(job.job_id)))})
    heard: list[object] = []
    fd = zeros()
    runner.client.train(job, fd, heard.append).close()
    os.close(fd)

    assert len(heard) < 20


def test_a_dataset_file_that_a_plan_may_read_is_only_its_own(runner: Runner) -> None:
    """Two datasets in one folder may be for two researchers."""
    south = write_table(runner.folder / "data" / "south.csv")
    code = f"open({str(runner.table)!r}).read()"

    runner.train(plan_with(code)).close()
    error = runner.failure(plan_with(code), dataset=runner.dataset(south))

    assert "PermissionError" in error.record
