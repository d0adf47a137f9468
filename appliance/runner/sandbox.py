"""Confines the calling process for good: no network, no program, no other process, no file but those named.

In this order, each line of defence standing when the one before it fails:

1. an own session, no descriptor but its own, no environment, limits that the kernel keeps;
2. an own user where there is one, no capability, no new privilege, death with the supervisor;
3. Landlock: files, TCP, signals and abstract sockets;
4. seccomp: what Landlock does not know (UDP, Unix sockets, io_uring, attributes of files) and what no plan needs.

System calls that this page has never heard of are answered as an older kernel would.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import resource
import signal
import sys
import sysconfig
import tempfile
import termios
from collections.abc import Iterable
from pathlib import Path

import landlockpy
from landlockpy import AccessFS, Scope

import appliance
from appliance.protocol.errors import Code, FedWardError
from appliance.protocol.local.jobs import Limits, SandboxLevel
from appliance.runner.wire import Start

try:
    import pyseccomp  # at the top: it looks its library up with a program, which Landlock would deny
except (ImportError, RuntimeError):  # RuntimeError: without libseccomp
    pyseccomp = None

MAX_THREADS = 256
_OPEN_FILES = 1024

_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS, _PR_SET_MM = 1, 4, 24, 38, 35
_CAPABILITY_VERSION_3 = 0x20080522
_F_SETOWN_EX, _FIOSETOWN, _SIOCSPGRP = 15, 0x8901, 0x8902

_libc = ctypes.CDLL(None, use_errno=True)


class SandboxError(FedWardError):
    """A defence that must work could not be put up; nothing foreign has run."""

    code = Code.SANDBOX_INCOMPLETE


def probe(*, cgroup: bool = False, own_uid: bool = False) -> SandboxLevel:
    """What this machine can give a child."""
    try:
        actions = Path("/proc/sys/kernel/seccomp/actions_avail").read_text().split()
    except OSError:
        actions = []
    seccomp = pyseccomp is not None and "errno" in actions
    return SandboxLevel(landlock=landlockpy.abi_version(), seccomp=seccomp, cgroup=cgroup, own_uid=own_uid)


def confine(start: Start) -> None:
    """Confine this process, which must have one thread, until it ends.

    Raises:
        SandboxError: A defence of ``start.level`` does not work here.
    """
    try:
        os.environ.clear()
        os.environ.update(_environment(start))
        tempfile.tempdir = start.scratch  # a library may have asked for it before there was a scratch
        os.umask(0o077)
        os.chdir(start.scratch)
        _limit(start)
        _drop_privileges(start)
        if start.level.landlock:
            _restrict_files(start)
        if start.level.seccomp:
            _filter_calls(start.limits)
    except (OSError, ValueError) as error:
        raise SandboxError(f"The training process could not be confined ({error}).") from error


def _environment(start: Start) -> dict[str, str]:
    private = dict.fromkeys(
        ("HOME", "TMPDIR", "XDG_CACHE_HOME", "TORCH_HOME", "TORCHINDUCTOR_CACHE_DIR"), start.scratch
    )
    # USER spares libraries a look into the password file, which is out of reach.
    return {**private, "USER": "plan", "LOGNAME": "plan", "LANG": "C.UTF-8", "PATH": "", "TZ": "UTC"}


def _limit(start: Start) -> None:
    limits = start.limits
    _set_limit(resource.RLIMIT_CORE, 1)  # no file, and unlike 0 no pipe to a helper either (core(5))
    _set_limit(resource.RLIMIT_FSIZE, max(limits.file_bytes, limits.memory_bytes))  # an update is a file, too
    _set_limit(resource.RLIMIT_NOFILE, _OPEN_FILES)
    _set_limit(resource.RLIMIT_MEMLOCK, 64 << 10)
    _set_limit(resource.RLIMIT_MSGQUEUE, 0)
    uid = os.getuid() if start.uid is None else start.uid
    if uid != 0:  # the kernel does not count root's
        _set_limit(resource.RLIMIT_NPROC, _tasks_of(uid) + limits.processes + MAX_THREADS)
    if not start.use_gpu:  # CUDA maps whole devices
        _set_limit(resource.RLIMIT_DATA, _data_bytes() + limits.memory_bytes)


def _set_limit(kind: int, value: int) -> None:
    _, hard = resource.getrlimit(kind)
    value = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(kind, (value, value))


def _data_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[5])
    return pages * resource.getpagesize()


def _tasks_of(uid: int) -> int:
    tasks = 0
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if path.stat().st_uid == uid:
                tasks += int((path / "stat").read_text().rpartition(")")[2].split()[17])
        except (OSError, ValueError, IndexError):
            continue
    return tasks


def _drop_privileges(start: Start) -> None:
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    for capability in range(64):
        _libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0)  # refused to ordinary users, who have none
    if start.uid is not None:
        # The groups stay, without root's: through one of them the hospital gives the runner its data.
        os.setgroups([group for group in os.getgroups() if group != 0])
        os.setresgid(start.uid, start.uid, start.uid)
        os.setresuid(start.uid, start.uid, start.uid)
    header, none = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0), (ctypes.c_uint32 * 6)()
    _require(_libc.capset(ctypes.byref(header), ctypes.byref(none)), "capset")
    # Landlock keeps other plans from looking into this process. Then the supervisor may: it measures what is used.
    _prctl(_PR_SET_DUMPABLE, int(start.level.landlock > 0))
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != start.supervisor_pid:
        os._exit(1)  # the supervisor died before the line above


def _prctl(option: int, value: int) -> None:
    _require(_libc.prctl(option, value, 0, 0, 0), f"prctl {option}")


def _require(result: int, what: str) -> None:
    if result != 0:
        raise OSError(ctypes.get_errno(), f"{what}: {os.strerror(ctypes.get_errno())}")


_READ = AccessFS.READ_FILE | AccessFS.READ_DIR
_SCRATCH = (
    _READ | AccessFS.WRITE_FILE | AccessFS.TRUNCATE | AccessFS.REFER
    | AccessFS.MAKE_REG | AccessFS.MAKE_DIR | AccessFS.REMOVE_FILE | AccessFS.REMOVE_DIR
)  # fmt: skip
_DEVICE = AccessFS.READ_FILE | AccessFS.WRITE_FILE | AccessFS.IOCTL_DEV
_GPU_READABLE = (
    "/proc/self",
    "/proc/devices",
    "/proc/driver",
    "/proc/modules",
    "/sys/devices",
    "/sys/bus",
    "/sys/module",
)


def _restrict_files(start: Start) -> None:
    with landlockpy.Ruleset(scoped=Scope.SIGNAL | Scope.ABSTRACT_UNIX_SOCKET) as rules:
        for path in (*_installation(), *(_GPU_READABLE if start.use_gpu else ())):
            _allow(rules, path, _READ)
        for device in ("/dev/null", *(map(str, Path("/dev").glob("nvidia*")) if start.use_gpu else ())):
            _allow(rules, device, _DEVICE if Path(device).is_char_device() else _READ)
        for path in start.readable:
            _allow(rules, path, _READ, must_exist=True)
        _allow(rules, start.scratch, _SCRATCH, must_exist=True)
        rules.restrict()


def _allow(rules: landlockpy.Ruleset, path: str, access: AccessFS, *, must_exist: bool = False) -> None:
    if must_exist or Path(path).exists():
        # The kernel refuses a folder's rights for a file.
        rules.allow_path(path, access if Path(path).is_dir() else access & ~(AccessFS.READ_DIR))


def _installation() -> Iterable[str]:
    """Python, its libraries and this package, and what they look at; nothing here is a hospital's."""
    names = ("stdlib", "platstdlib", "purelib", "platlib")
    python = {sysconfig.get_path(name) for name in names}
    python |= {f"{prefix}/lib" for prefix in (sys.prefix, sys.base_prefix)}
    python.add(str(Path(appliance.__file__).parent))
    system = (
        "/lib", "/lib64", "/usr/lib", "/usr/lib64", "/etc/ld.so.cache", "/usr/share/zoneinfo", "/etc/localtime",
        "/dev/urandom", "/dev/random", "/dev/zero", "/proc/cpuinfo", "/proc/meminfo", "/sys/devices/system/cpu",
    )  # fmt: skip
    return sorted(python) + list(system)


# Denied with EPERM whatever their arguments. One that this machine's architecture lacks makes no rule.
_DENIED = """
    socket socketpair connect bind listen accept accept4 sendto recvfrom sendmmsg recvmmsg shutdown
    io_uring_setup io_uring_enter io_uring_register
    ptrace process_vm_readv process_vm_writev process_madvise process_mrelease kcmp pidfd_open pidfd_getfd
    pidfd_send_signal tkill rt_sigqueueinfo rt_tgsigqueueinfo setsid setpgid
    execve execveat
    add_key keyctl request_key bpf userfaultfd perf_event_open seccomp
    mount umount2 pivot_root chroot move_mount open_tree fsopen fsconfig fsmount fspick mount_setattr
    unshare setns swapon swapoff name_to_handle_at open_by_handle_at fanotify_init fanotify_mark
    inotify_init inotify_init1 inotify_add_watch
    chmod fchmod fchmodat chown fchown lchown fchownat utime utimes futimesat utimensat
    setxattr lsetxattr fsetxattr removexattr lremovexattr fremovexattr truncate mknod mknodat link linkat
    kexec_load kexec_file_load init_module finit_module delete_module reboot acct quotactl quotactl_fd syslog
    settimeofday clock_settime adjtimex clock_adjtime sethostname setdomainname vhangup iopl ioperm modify_ldt
    personality lookup_dcookie migrate_pages move_pages
    shmget shmat shmctl shmdt semget semop semctl semtimedop msgget msgsnd msgrcv msgctl
    mq_open mq_unlink mq_timedsend mq_timedreceive mq_notify mq_getsetattr
""".split()  # noqa: SIM905 - read as a page, not as a list
# Answered as an older kernel would, so that the C library takes the call that can be looked into.
_UNKNOWN = ("clone3", "openat2", "memfd_secret")
_FIRST_NEW, _LAST_NEW = 452, 1023  # from fchmodat2 on, and what later kernels will add
_CLONE_THREAD = 0x00010000
_CLONE_DENIED = (  # new namespaces, and a process that would be the supervisor's child
    0x00020000, 0x02000000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000, 0x00008000,
)  # fmt: skip
_INT = 0xFFFFFFFF  # the kernel drops the upper half of an int argument, so a rule must not look at it


def _filter_calls(limits: Limits) -> None:
    rules = pyseccomp.SyscallFilter(pyseccomp.ALLOW)
    rules.set_attr(pyseccomp.Attr.ACT_BADARCH, pyseccomp.KILL_PROCESS)  # 32-bit and x32 calls have other numbers
    rules.set_attr(pyseccomp.Attr.CTL_OPTIMIZE, 2)  # a binary tree
    deny, unknown = pyseccomp.ERRNO(errno.EPERM), pyseccomp.ERRNO(errno.ENOSYS)
    for name in _DENIED:
        rules.add_rule(deny, name)
    for call in (*_UNKNOWN, *range(_FIRST_NEW, _LAST_NEW + 1)):
        rules.add_rule(unknown, call)
    _filter_processes(rules, deny, limits.processes)
    _filter_others(rules, deny)
    # Emptying a file while opening it for reading: Landlock knows it only from its third version on.
    mask, value = os.O_ACCMODE | os.O_TRUNC, os.O_RDONLY | os.O_TRUNC
    rules.add_rule(deny, "open", _argument(1, pyseccomp.MASKED_EQ, mask, value))
    rules.add_rule(deny, "openat", _argument(2, pyseccomp.MASKED_EQ, mask, value))
    rules.load()


def _filter_processes(rules: pyseccomp.SyscallFilter, deny: int, processes: int) -> None:
    for flag in _CLONE_DENIED:
        rules.add_rule(deny, "clone", _argument(0, pyseccomp.MASKED_EQ, flag, flag))
    if processes == 0:
        rules.add_rule(deny, "fork")
        rules.add_rule(deny, "vfork")
        rules.add_rule(deny, "clone", _argument(0, pyseccomp.MASKED_EQ, _CLONE_THREAD, 0))


def _filter_others(rules: pyseccomp.SyscallFilter, deny: int) -> None:
    """Deny what reaches another process of the same user, which Landlock leaves alone."""
    me = os.getpid()
    rules.add_rule(deny, "kill", _argument(0, pyseccomp.NE, me))
    rules.add_rule(deny, "tgkill", _argument(0, pyseccomp.NE, me))
    for call in ("prlimit64", "sched_setaffinity", "sched_setscheduler", "sched_setparam", "sched_setattr"):
        rules.add_rule(deny, call, _argument(0, pyseccomp.NE, 0))
    for call, itself in (("setpriority", os.PRIO_PROCESS), ("ioprio_set", 1)):
        rules.add_rule(deny, call, _argument(0, pyseccomp.NE, itself))
        rules.add_rule(deny, call, _argument(1, pyseccomp.NE, 0))
    # Whom the kernel shall signal, and how, when a descriptor is ready: before Landlock's sixth version, anybody.
    for command in (fcntl.F_SETOWN, _F_SETOWN_EX, fcntl.F_SETSIG):
        rules.add_rule(deny, "fcntl", _argument(1, pyseccomp.MASKED_EQ, _INT, command))
    for request in (_FIOSETOWN, _SIOCSPGRP, termios.TIOCSTI):
        rules.add_rule(deny, "ioctl", _argument(1, pyseccomp.MASKED_EQ, _INT, request))
    for option in (_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_MM):
        rules.add_rule(deny, "prctl", _argument(0, pyseccomp.MASKED_EQ, _INT, option))


def _argument(position: int, operation: int, value: int, second: int = 0) -> pyseccomp.Arg:
    return pyseccomp.Arg(position, operation, value, second)
