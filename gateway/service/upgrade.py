"""Changing the program under a running service: what the supervisor hands to the program that takes its place.

`execve` keeps the process id, the children and every descriptor that is told to stay. Everything else goes through a
file in memory whose descriptor is in the environment: an Inheritance. Before that, a Trial runs the new program up to a
worker that is ready, so that what cannot start does not take over.
"""

from __future__ import annotations

import json
import os
import pickle
import sys
from collections.abc import MutableMapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from gateway.service import child
from gateway.service.context import EX_SOFTWARE
from gateway.service.loading import LoadedPolicy

FORMAT = 1  # of an Inheritance; a program that does not know it refuses the trial
TIMEOUT = 90.0  # seconds that a trial may take
_INHERITANCE, _TRIAL = "RELAY_GATEWAY_INHERITANCE", "RELAY_GATEWAY_TRIAL"  # in the environment: descriptors


class UpgradeError(Exception):
    """The new program cannot take over; the text is for the operator."""


@dataclass(frozen=True, slots=True)
class InheritedProcess:
    """A child that runs; page: the place of its counter page."""

    slot: int
    generation: int
    pid: int
    started: float
    page: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Inheritance:
    """Plain values and descriptors. sockets: by purpose, (address, which of its kind, a descriptor per slot)."""

    generation: int
    last_generation: int
    policy: str  # the LoadedPolicy in force, pickled, in hexadecimal digits
    processes: list[InheritedProcess]
    sockets: dict[str, list[tuple[str, int, list[int]]]]
    pages: int
    page_size: int
    layout: str  # a digest of what the pages' words mean
    totals: dict[str, dict[str, list[float]]]  # what has been counted, for another layout
    awake: int
    wake: int
    control: tuple[int, str] | None
    asked_by: int | None  # who waits for the upgrade
    arena: int | None = None  # versions before had none
    arena_layout: str = ""
    format: int = FORMAT

    def descriptors(self) -> list[int]:
        """What must stay open."""
        fds = [fd for group in self.sockets.values() for _, _, each in group for fd in each]
        fds += [self.pages, self.awake, self.wake, *([] if self.arena is None else [self.arena])]
        return fds + ([self.control[0]] if self.control else []) + ([self.asked_by] if self.asked_by else [])

    def loaded_policy(self) -> LoadedPolicy:
        """The policy in force. Raises UpgradeError where this program's policies are different things."""
        try:
            policy = pickle.loads(bytes.fromhex(self.policy))
        except Exception as error:  # a pickle of another program can raise nearly anything
            raise UpgradeError(f"the policy in force cannot be taken over: {error}") from error
        assert isinstance(policy, LoadedPolicy)
        return policy

    def to_file(self) -> int:
        """A descriptor that another program can read this from."""
        fd = os.memfd_create("inheritance", 0)
        with open(os.dup(fd), "w") as file:
            json.dump(asdict(self), file)
        return fd

    @classmethod
    def from_file(cls, fd: int) -> Inheritance:
        """Raises UpgradeError for what another program wrote differently."""
        try:
            with open(f"/proc/self/fd/{fd}") as file:
                values: dict[str, Any] = json.load(file)
            if values.get("format") != FORMAT:
                raise UpgradeError(f"its format is {values.get('format')}, this program's {FORMAT}")
            processes = [InheritedProcess(**each) for each in values.pop("processes")]
            return cls(processes=processes, **values)
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise UpgradeError(f"what the running service hands over cannot be read: {error}") from error


def inherited(environment: MutableMapping[str, str] = os.environ) -> Inheritance | None:
    """What the program before has left for this one."""
    text = environment.pop(_INHERITANCE, None)
    if text is None:
        return None
    fd = int(text)
    inheritance = Inheritance.from_file(fd)
    os.close(fd)
    for each in inheritance.descriptors():
        os.set_inheritable(each, False)
    return inheritance


def replace_program(inheritance: Inheritance) -> None:
    """Become the new program. Returns only by raising UpgradeError, and with everything as before."""
    fd = inheritance.to_file()
    stay = [fd, *inheritance.descriptors()]
    for each in stay:
        os.set_inheritable(each, True)
    try:
        _execute({**os.environ, _INHERITANCE: str(fd)})
    except OSError as error:
        for each in stay:
            os.set_inheritable(each, False)
        os.close(fd)
        raise UpgradeError(f"cannot execute the new program: {error}") from error


def _execute(environment: dict[str, str]) -> None:
    """The command that started this service, once more: what stands at that place by now may be another version."""
    arguments = sys.orig_argv[1:]
    if arguments and os.path.isfile(arguments[0]) and os.access(arguments[0], os.X_OK):
        os.execve(arguments[0], arguments, environment)  # a script, which knows its interpreter
    os.execve(sys.executable, [sys.executable, *arguments], environment)


def pickled(policy: LoadedPolicy) -> str:
    """A policy as an Inheritance has it."""
    return pickle.dumps(policy).hex()


class Trial:
    """The new program under trial, in a process of its own. `fd` becomes readable when `receive` has something."""

    def __init__(self, inheritance: Inheritance, now: float) -> None:
        """Raises OSError."""
        self.deadline = now + TIMEOUT
        self.fd, sending = os.pipe()
        handed = inheritance.to_file()

        def run() -> int:
            os.set_inheritable(sending, True)
            try:
                _execute({**os.environ, _TRIAL: f"{sending} {handed}"})
            except OSError as error:
                os.write(sending, json.dumps([f"cannot execute the new program: {error}"]).encode())
            return EX_SOFTWARE

        try:
            self.pid = child.start(run, "upgrade-trial")
        except OSError:
            os.close(self.fd)
            raise
        finally:
            os.close(sending)
            os.close(handed)
        self._received = b""

    def receive(self) -> list[str] | None:
        """What is wrong with the new program, [] for nothing; None as long as that is not known."""
        data = os.read(self.fd, 65536)
        self._received += data
        if data:
            return None
        self.close()
        try:
            problems = json.loads(self._received)
        except ValueError:
            return ["the new program does not start; its diagnostics are above"]
        return [str(problem) for problem in problems]

    def close(self) -> None:
        """Stop listening to it."""
        os.close(self.fd)


class Examination:
    """The other side of a Trial, in the new program."""

    def __init__(self, answer: int, handed: int) -> None:
        self._answer, self._handed = answer, handed

    @classmethod
    def asked_for(cls, environment: MutableMapping[str, str] = os.environ) -> Examination | None:
        """None where this program is to serve."""
        text = environment.pop(_TRIAL, None)
        return None if text is None else cls(*map(int, text.split()))

    def problems_of_inheritance(self) -> list[str]:
        """What this program would not understand."""
        try:
            Inheritance.from_file(self._handed).loaded_policy()
        except UpgradeError as error:
            return [str(error)]
        return []

    def tell(self, problems: Sequence[str]) -> None:
        """The result."""
        with open(self._answer, "w") as pipe:
            json.dump(list(problems), pipe)
