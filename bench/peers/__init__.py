"""The servers that are measured side by side: how each is started, with which configuration, and stopped."""

from .base import Knobs, Peer, PeerError
from .configured import Exim, Haraka, OpenSMTPD, PostfixProxy, PostfixQueue
from .simple import Aiosmtpd, AiosmtpdDiscard, Direct, Gateway, KumoMTA, SmtpSink

PEERS: dict[str, type[Peer]] = {
    peer.name: peer
    for peer in (
        Direct,
        SmtpSink,
        Gateway,
        AiosmtpdDiscard,
        Aiosmtpd,
        PostfixProxy,
        PostfixQueue,
        Exim,
        OpenSMTPD,
        Haraka,
        KumoMTA,
    )
}

__all__ = ["PEERS", "Knobs", "Peer", "PeerError"]
