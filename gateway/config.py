"""What a policy declares, as plain values: listeners, listener domains, queues, egress paths, logs,
spools; and where it runs, which the command line says.

Everything here is frozen, picklable and free of Lua and I/O, so that the process that reads the policy can hand
it to the others. How such values are read out of Lua tables (and what is accepted) is gateway/policy's business.
Durations are seconds. Names of fields are KumoMTA's parameter names.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any

from gateway._fastpath import CidrSet
from gateway.rates import Rate
from gateway.shipments import Shipment

RECORD_TYPES = (
    *("Reception", "Delivery", "TransientFailure", "Bounce", "Expiration", "AdminBounce"),
    *("Rejection", "OOB", "Feedback"),
)


class LineEndings(Enum):
    """`invalid_line_endings`: what happens to a body with a lone CR or LF."""

    DENY = "Deny"
    ALLOW = "Allow"
    FIX = "Fix"


class EarlyTalker(Enum):
    """`early_talker`: what happens to a client that talks before the banner."""

    ACCEPT = "Accept"
    REJECT = "Reject"


class TlsMode(Enum):
    """`tls_mode`: when TLS begins."""

    START_TLS = "StartTls"
    IMPLICIT = "ImplicitTls"  # with the first octet (RFC 8314 §3)


class TlsVersion(Enum):
    """`tls_minimum_version`."""

    V1_2 = "TLSv1_2"
    V1_3 = "TLSv1_3"


class BatchHandling(Enum):
    """`batch_handling`: which recipients of a transaction travel together."""

    TOGETHER = "Together"  # the default: everything with the same destination
    BY_DOMAIN = "BatchByDomain"
    BIFURCATE = "BifurcateAlways"


class PartialRefusal(Enum):
    """`on_partial_refusal`: what is done about recipients that the fleet refused, while others have the message."""

    DSN = "Dsn"  # the default: the sender is notified, beside the record
    RECORD = "Record"  # the Bounce record is enough


class Disposition(Enum):
    """`log_oob`/`log_arf`: what to do with a report (docs/policy.md has the table)."""

    IGNORE = "Ignore"
    LOG = "Log"  # spelled `true` in a policy: log, then relay only where relaying is allowed
    LOG_THEN_RELAY = "LogThenRelay"
    LOG_THEN_DROP = "LogThenDrop"


@dataclass(frozen=True, slots=True, kw_only=True)
class ListenerDomain:
    """What `get_listener_domain` grants for one domain: the result of `kumo.make_listener_domain`."""

    relay_to: bool = False
    relay_from: CidrSet = CidrSet()
    log_oob: Disposition = Disposition.IGNORE
    log_arf: Disposition = Disposition.IGNORE
    takes_reports: bool = field(init=False, compare=False)  # mail is accepted for the sake of being logged as a report

    def __post_init__(self) -> None:
        takes_reports = self.log_oob is not Disposition.IGNORE or self.log_arf is not Disposition.IGNORE
        object.__setattr__(self, "takes_reports", takes_reports)


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceHeaders:
    """`trace_headers`: which trace headers are added to accepted mail."""

    received_header: bool = True
    supplemental_header: bool = True
    header_name: str = "X-KumoRef"
    include_meta_names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class KeySource:
    """Where a PEM text comes from: a file's path, or the text itself."""

    path: str | None = None
    key_data: str | None = field(default=None, repr=False)


_GUESSES = Rate(120.0, 30)  # 30/1h


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """`limits`: what a client may do; 0 and None: anything.

    The first three are for one session, since its last message. The others are for all of a network, or of an identity.
    ipv4_prefix, ipv6_prefix: how large a network is. trusted: peers in relay_hosts are held to all of it as well.
    """

    errors: int = 20
    invalid_recipients: int = 20
    idle_commands: int = 100
    trusted: bool = False
    connections: int = 1000
    connection_rate: Rate | None = None
    message_rate: Rate | None = None
    recipient_rate: Rate | None = None
    octet_rate: Rate | None = None
    auth_failures: Rate | None = _GUESSES
    ipv4_prefix: int = 32
    ipv6_prefix: int = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class ListenerParams:
    """The effective parameters of one connection: a listener's, after its `peer` and `via` blocks."""

    hostname: str
    banner: str = "relay-gateway"
    relay_hosts: CidrSet = CidrSet(("127.0.0.1", "::1"))
    max_message_size: int = 20 * 1024 * 1024
    max_recipients_per_message: int = 1024
    max_messages_per_connection: int = 10_000
    client_timeout: float = 60.0
    first_command_timeout: float | None = None  # None, here and below: the usual one, for relay hosts none
    command_timeout: float | None = None
    data_timeout: float | None = None
    minimum_data_rate: Rate | None = None  # octets
    limits: Limits = Limits()
    limits_per_identity: Limits | None = None
    data_processing_timeout: float = 300.0
    line_length_hard_limit: int = 998
    invalid_line_endings: LineEndings = LineEndings.DENY
    trace_headers: TraceHeaders = TraceHeaders()
    batch_handling: BatchHandling = BatchHandling.TOGETHER
    tls_certificate: KeySource | None = None
    tls_private_key: KeySource | None = None
    tls_mode: TlsMode = TlsMode.START_TLS
    tls_minimum_version: TlsVersion = TlsVersion.V1_2
    tls_ciphers: str | None = None
    tls_required_client_ca: KeySource | None = None
    tls_optional_client_ca: KeySource | None = None
    sni: Mapping[str, tuple[KeySource, KeySource]] = field(default_factory=dict)  # certificate and key by name
    feedback_senders: frozenset[str] = frozenset()  # addresses and domains, in lower case
    report_excerpt: bool = False
    require_proxy_protocol: bool = False
    proxy_protocol_from: CidrSet | None = None
    allow_xclient: bool = False
    xclient_from: CidrSet | None = None
    early_talker: EarlyTalker = EarlyTalker.ACCEPT
    banner_delay: float = 0.0
    disable_vrfy: bool = False
    withhold_extensions: frozenset[str] = frozenset()  # keywords
    meta: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Listener:
    """One `kumo.start_esmtp_listener` call.

    `overrides` are the parameters as given (after validation, only the keys that were set); `peer` and `via` map
    CIDR texts to blocks of the same shape. gateway/policy/listener.py works out a connection's ListenerParams.
    """

    listen: str  # "IP:PORT" or "[IPv6]:PORT", as bound; port 0 picks a free one
    max_connections: int = 32_768
    overrides: Mapping[str, Any] = field(default_factory=dict)
    peer: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    via: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpListener:
    """One `kumo.start_http_listener` call."""

    listen: str = "127.0.0.1:8000"
    trusted_hosts: CidrSet = CidrSet(("127.0.0.1", "::1"))
    hostname: str | None = None
    allowed_hosts: frozenset[str] = frozenset()  # names in lower case, `*.example.com` and `*` among them


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordSettings:
    """One entry of `per_record`: where and whether records of a type are written."""

    enable: bool = True
    suffix: str = ".zst"  # KumoMTA's reader takes every name unless told otherwise, and zstd's tools want this one
    log_dir: str | None = None
    template: str | None = None
    segment_header: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalLogs:
    """One `kumo.configure_local_logs` call: an independent logger."""

    log_dir: str
    max_file_size: int = 1_000_000_000  # uncompressed bytes per segment
    max_segment_duration: float | None = None
    back_pressure: int = 128_000  # records waiting to be written
    compression_level: int = 0  # 0 = zstd's default
    meta: tuple[str, ...] = ()
    headers: tuple[str, ...] = ()
    per_record: Mapping[str, RecordSettings] = field(default_factory=dict)
    filter_event: str | None = None
    min_free_space: str | int = "10%"
    min_free_inodes: str | int = "10%"


class SpoolOrder(Enum):
    """`order` of a spool: what goes first where the fleet has room for some of what there is only."""

    NEW_FIRST = "NewFirst"  # the default: what was spooled takes at most half of the room there is
    OLDEST_FIRST = "OldestFirst"


@dataclass(frozen=True, slots=True, kw_only=True)
class SpoolSettings:
    """One `kumo.define_spool` call, or `--spool`: a directory for what the fleet cannot take now."""

    name: str
    path: str
    min_free_space: str | int = "10%"
    min_free_inodes: str | int = "10%"
    order: SpoolOrder = SpoolOrder.NEW_FIRST  # the gateway's own option


@dataclass(frozen=True, slots=True)
class Host:
    """One entry of `mx_list`: a member of the fleet. `port` None means the egress path's `smtp_port`.

    The others are those of `gateway.fleet`: its share of the work, the group it stands in (the lowest that has a member
    in order gets the mail), where it is, and options of the egress path that are its own.
    """

    name: str  # as records show it
    address: str  # host name or IP address to connect to
    port: int | None = None
    weight: int = 1
    group: int = 1
    zone: str = ""
    path: tuple[tuple[str, Any], ...] = ()


@dataclass(frozen=True, slots=True)
class SmtpFleet:
    """`protocol = { smtp = { mx_list = {…} } }`, or `gateway.fleet {…}`: a balanced pool of MTAs.

    zone: where the gateway is, "" for anywhere.
    """

    mx_list: tuple[Host, ...]
    zone: str = ""


@dataclass(frozen=True, slots=True)
class Maildir:
    """`protocol = { maildir_path = '…' }`."""

    path: str
    dir_mode: int | None = None
    file_mode: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueConfig:
    """The result of `kumo.make_queue_config`. `protocol` None is a queue without a destination: 451 4.3.5."""

    protocol: SmtpFleet | Maildir | None = None
    egress_pool: str | None = None
    provider_name: str | None = None
    refresh_interval: float = 60.0
    retry_interval: float = 1200.0
    max_retry_interval: float | None = None
    max_age: float = 604_800.0
    on_partial_refusal: PartialRefusal = PartialRefusal.DSN  # the gateway's own option


def site_name(protocol: SmtpFleet | Maildir) -> str:
    """What `get_egress_path_config` gets as its `site_name`, in KumoMTA's spelling."""
    if isinstance(protocol, Maildir):
        return f"maildir:{protocol.path}"
    return "mx_list:" + ",".join([host.name for host in protocol.mx_list])


class ClientAddress(Enum):
    """`client_address`: how a member is told the address of a message's client."""

    XCLIENT = "xclient"
    XFORWARD = "xforward"
    PROXY = "proxy"  # version 2


class UpstreamTls(Enum):
    """`enable_tls` of an egress path: whether STARTTLS is used towards the fleet."""

    OPPORTUNISTIC = "Opportunistic"
    OPPORTUNISTIC_INSECURE = "OpportunisticInsecure"
    REQUIRED = "Required"
    REQUIRED_INSECURE = "RequiredInsecure"
    DISABLED = "Disabled"


@dataclass(frozen=True, slots=True, kw_only=True)
class EgressPath:
    """The result of `kumo.make_egress_path`: how to talk to a member of the fleet."""

    connection_limit: int = 32  # per member, from all workers
    wait_timeout: float = 60.0  # for a connection where all are busy; the gateway's own option
    max_deliveries_per_connection: int = 1024
    max_recipients_per_batch: int = 100
    smtp_port: int = 25
    ehlo_domain: str | None = None
    enable_tls: UpstreamTls = UpstreamTls.OPPORTUNISTIC
    enable_pipelining: bool = True
    enable_chunking: bool = False  # the gateway's own option
    connect_timeout: float = 60.0
    banner_timeout: float = 60.0
    ehlo_timeout: float = 300.0
    starttls_timeout: float = 5.0
    mail_from_timeout: float = 300.0
    rcpt_to_timeout: float = 300.0
    data_timeout: float = 300.0
    data_dot_timeout: float = 300.0
    idle_timeout: float = 5.0
    auth_timeout: float = 60.0
    tls_certificate: KeySource | None = None
    tls_private_key: KeySource | None = None
    tls_ca: KeySource | None = None  # instead of those that the system trusts; the gateway's own option
    tls_name: str | None = None  # in the member's certificate, and for SNI; the gateway's own option
    openssl_cipher_list: str | None = None
    smtp_auth_plain_username: str | None = None
    smtp_auth_plain_password: KeySource | None = None
    allow_smtp_auth_plain_without_tls: bool = False
    allow_smtp_auth_plain_without_valid_certificate: bool = False
    use_lmtp: bool = False
    client_address: ClientAddress | None = None  # the gateway's own option
    prohibited_hosts: CidrSet = CidrSet()
    refresh_interval: float = 60.0


@dataclass(frozen=True, slots=True, eq=False)
class Destination:
    """How mail of a queue travels, and how to talk to who is there. Each is only equal to itself: comparing two
    configurations by value would cost more than all else that is done to find a fleet.
    """

    queue: QueueConfig
    path: EgressPath


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """Where a policy runs, which it does not say itself.

    fleet: where accepted mail goes, whatever the policy says about it; None: where that says. listen: the addresses of
    its SMTP listeners instead of its own; (): those. spool: instead of its own.
    """

    fleet: Destination | None = None
    listen: tuple[str, ...] = ()
    spool: SpoolSettings | None = None

    def listeners(self, declared: tuple[Listener, ...]) -> tuple[Listener, ...]:
        """The policy's listeners where they listen here: in their order; further addresses are like the last one's."""
        if not self.listen:
            return declared
        given = declared or (Listener(listen=""),)
        return tuple(
            replace(given[min(place, len(given) - 1)], listen=address) for place, address in enumerate(self.listen)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyConfig:
    """Everything a policy declared at its top level and in `init`."""

    listeners: tuple[Listener, ...] = ()
    http_listeners: tuple[HttpListener, ...] = ()
    local_logs: tuple[LocalLogs, ...] = ()
    spools: tuple[SpoolSettings, ...] = ()  # KumoMTA's files have two of them
    watched: tuple[str, ...] = ()  # globs of files whose changes make the policy be loaded again
    shipments: tuple[Shipment, ...] = ()

    @property
    def spool(self) -> SpoolSettings | None:
        """The one that is used: "data", or the first."""
        return next((spool for spool in self.spools if spool.name == "data"), next(iter(self.spools), None))
