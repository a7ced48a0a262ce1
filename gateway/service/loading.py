"""Loading a policy in a throw-away child, so that the supervisor itself never runs Lua.

The child sends back what the policy declares and the text it was read from, or what is wrong with it.
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from gateway.net.tls import KeyFiles
from gateway.service import child
from gateway.service.watching import WatchedFiles

if TYPE_CHECKING:
    from gateway.config import PolicyConfig
    from gateway.policy.source import PolicySource

TIMEOUT = 60.0  # seconds that a policy may take to load


@dataclass(frozen=True, slots=True)
class LoadedPolicy:
    """A policy that was found good."""

    config: PolicyConfig
    source: PolicySource  # with every file that was read
    keys: KeyFiles = field(default_factory=KeyFiles)  # with every certificate and key that listeners name
    watched: WatchedFiles = field(default_factory=WatchedFiles)  # whose changes make it be loaded again


@dataclass(frozen=True, slots=True)
class BadPolicy:
    """What is wrong with a policy or with what it names: one text per problem, for the operator.

    may_pass: whether a later start may succeed although nobody has edited anything.
    """

    problems: tuple[str, ...]
    may_pass: bool = False


Load = Callable[[], LoadedPolicy | BadPolicy]


class Loading:
    """A load under way. `fd` becomes readable when `receive` has something to do."""

    def __init__(self, load: Load, now: float, *, before: Callable[[], None]) -> None:
        """before: runs first in the child (closes what is not its own, gives up privileges). May raise OSError."""
        self.deadline = now + TIMEOUT
        self.fd, sending = os.pipe()

        def run() -> int:
            before()
            os.close(self.fd)
            with os.fdopen(sending, "wb") as pipe:
                pickle.dump(load(), pipe)
            return 0

        try:
            self.pid = child.start(run, "policy-check")
        except OSError:
            os.close(self.fd)
            raise
        finally:
            os.close(sending)
        self._received = bytearray()

    def receive(self) -> LoadedPolicy | BadPolicy | None:
        """Take what the child sent; the result once it is complete. Blocks unless `fd` is readable."""
        data = os.read(self.fd, 1 << 20)
        self._received += data
        if data:
            return None
        self.close()
        try:
            result = pickle.loads(self._received)
        except Exception:  # half a pickle can raise nearly anything
            result = None
        if isinstance(result, LoadedPolicy | BadPolicy):
            return result
        return BadPolicy(("the process that loads the policy died; its diagnostics are above",), may_pass=True)

    def close(self) -> None:
        """Stop listening to the child."""
        os.close(self.fd)
