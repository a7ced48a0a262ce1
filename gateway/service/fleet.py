"""`relay-gateway fleet`: the members of a running service as a table, and who of them gets no mail for a while.

The one end asks at the control socket, the other is the supervisor's, which has a row of its own in the members' table
(gateway/couriers/fleet/table.py). A member that is drained gets no message more; what is under way to it ends there.
"""

from __future__ import annotations

import argparse
import logging
from typing import Any

from gateway.arena import Arena
from gateway.couriers.fleet.survey import SERVING, lines, survey
from gateway.couriers.fleet.table import SUPERVISORS_ROW, MemberTable
from gateway.service import ask

logger = logging.getLogger(__name__)


class FleetDesk:
    """The supervisor's end."""

    def __init__(self, arena: Arena) -> None:
        self._table = MemberTable(arena.part("members"), SUPERVISORS_ROW)

    def answer(self, request: dict[str, Any], now: float) -> tuple[bool, list[str]]:
        """What to say to {"ask": "fleet", "do": "show" | "drain" | "undrain", "member": NAME}."""
        members = survey(self._table, now)
        action, name = request.get("do", "show"), request.get("member")
        if action == "show":
            return True, lines(members, now) if members else ["no mail has been relayed to a fleet yet"]
        if action not in ("drain", "undrain"):
            return False, [f"nobody knows how to {action!r} a member here"]
        meant = [member for member in members if member.name == name]
        if not meant:
            known = ", ".join(member.name for member in members) or "none yet"
            problem = "which member?" if name is None else f"there is no member {name!r};"
            return False, [f"{problem} known are: {known}"]
        for member in meant:
            self._table.enter_key(member.key, member.name).drain(action == "drain")
        logger.info("%s is %sed, as asked", name, action)
        if action == "undrain":
            return True, [f"{name} gets messages again"]
        told = [f"{name} gets no message more, within a second; what is under way to it ends there"]
        if not any([member.state in SERVING for member in members if member.name != name]):
            told.append("no other member is in order: mail is deferred until one is, or spooled where there is a spool")
        return True, told


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of the subcommand."""
    parser.description = "The members of the fleet as a running service knows them, and how they fare."
    parser.add_argument("do", nargs="?", choices=("show", "drain", "undrain"), default="show", help="default: show")
    parser.add_argument("member", nargs="?", metavar="MEMBER", help="whom to drain or undrain, by the name shown")
    ask.add_control(parser)


def run(args: argparse.Namespace) -> int:
    """Returns 0 where it went well, else 1 with the reasons on standard error."""
    return ask.ask_and_tell(args, {"ask": "fleet", "do": args.do, "member": args.member})
