"""When the certificates in force expire: told to metrics, and once a day to the log where it is soon.

What is in a certificate is net/tls.py's to know; the time is an argument.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable

from gateway import metrics
from gateway._fastpath import CounterPage
from gateway.config import Listener
from gateway.net import tls

log = logging.getLogger(__name__)

DAY = 86400.0  # seconds
SOON = tls.EXPIRES_SOON.total_seconds()

_EXPIRY = metrics.CERTIFICATE_EXPIRY.slot()


class CertificateWatch:
    """Of one worker. tells: one of a service's workers is to."""

    def __init__(self, listeners: Iterable[Listener], files: tls.KeyFiles, page: CounterPage, *, tells: bool) -> None:
        self._ends = {name: end.timestamp() for name, end in tls.ends(listeners, files).items()}
        self._tells = tells
        self._due = 0.0
        page.set_float(_EXPIRY, min(self._ends.values(), default=0.0))

    def beat(self, now: float) -> None:
        """now: seconds since 1970."""
        if not self._tells or now < self._due:
            return
        self._due = now + DAY
        for name, end in self._ends.items():
            if end < now + SOON:
                what = "has expired" if end < now else f"expires in {int((end - now) // DAY)} days"
                log.warning("%s: the certificate %s", name, what)
