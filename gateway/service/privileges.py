"""Giving up root, for good, once the privileged ports are bound; and memory dumps, which hold credentials."""

from __future__ import annotations

import contextlib
import os
import pwd
import resource


class PrivilegeError(Exception):
    """The process cannot become, or did not become, the user asked for."""


def check(user: str) -> pwd.struct_passwd:
    """The user's entry in the password database; PrivilegeError unless this process is or could become that user."""
    try:
        entry = pwd.getpwnam(user)
    except KeyError:
        raise PrivilegeError(f"there is no user {user!r}") from None
    if os.geteuid() not in (0, entry.pw_uid):
        raise PrivilegeError(f"only root can become {user!r}")
    return entry


def drop_to(user: str) -> None:
    """Become `user` with its groups; afterwards nothing in this process can become root again.

    Does nothing when the process runs as `user` already. Raises PrivilegeError.
    """
    entry = check(user)
    if os.getresuid() == (entry.pw_uid,) * 3:
        return
    os.setgroups(os.getgrouplist(user, entry.pw_gid))
    os.setresgid(entry.pw_gid, entry.pw_gid, entry.pw_gid)
    os.setresuid(entry.pw_uid, entry.pw_uid, entry.pw_uid)  # last: it takes the right to do the rest
    if os.getresuid() != (entry.pw_uid,) * 3 or os.getresgid() != (entry.pw_gid,) * 3:
        raise PrivilegeError(f"still not {user!r} after setresuid")
    if entry.pw_uid and _can_return_to_root():
        raise PrivilegeError("root could be regained")


def _can_return_to_root() -> bool:
    for regain in (os.setuid, os.seteuid, os.setgid):
        try:
            regain(0)
        except PermissionError:
            continue
        return regain is not os.setgid or os.getgid() == 0
    return False


def forbid_cores() -> None:
    """No core file of this process and its children. A kernel that pipes cores to a program may do so all the same."""
    with contextlib.suppress(OSError, ValueError):  # a sandbox that lets nobody change limits sets its own
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
