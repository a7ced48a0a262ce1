# CIDR syntax: text to prefix and back, and what to tell the operator whose text is not a prefix.
#
# Accepted: an address, or address/length with no bit set behind the length; IPv4 may leave out octets at the end
# (10/8, 192.168/16; without a length a short form is that padded host); and the word `any`, IPv4 and IPv6 together.
# The error texts are KumoMTA's up to the first full stop, because that is what people search for; the hint that
# follows is ours.

from libc.string cimport memcmp, memset

import re
from ipaddress import IPv4Address, IPv6Address, ip_network

cdef enum:
    TEXT_IPV4
    TEXT_IPV6
    TEXT_ANY
    TEXT_BAD_ADDRESS
    TEXT_LENGTH_EMPTY
    TEXT_LENGTH_NOT_A_NUMBER
    TEXT_LENGTH_OVERFLOW
    TEXT_LENGTH_TOO_LONG_IPV4
    TEXT_LENGTH_TOO_LONG_IPV6
    TEXT_HOST_BITS_IPV4
    TEXT_HOST_BITS_IPV6

    IPV6_TEXT_ROOM = 46          # INET6_ADDRSTRLEN

cdef extern from "<arpa/inet.h>" nogil:
    int AF_INET6
    int inet_pton(int family, const char *text, void *address)

cdef extern from "Python.h":
    Py_ssize_t PyUnicode_GET_LENGTH(object text)
    const char *PyUnicode_DATA(object text)


# --- reading ----------------------------------------------------------------------------------------------

cdef inline bint is_ipv4_mapped(uint64_t hi, uint64_t lo) noexcept nogil:
    # RFC 4291 §2.5.5.2: ::ffff:a.b.c.d, which is how a dual-stack socket reports an IPv4 peer
    return hi == 0 and lo >> 32 == 0xffff


cdef bint read_ipv4(const char *text, size_t size, Prefix *prefix) noexcept nogil:
    """One to four octets, decimal, without leading zeros (which some systems take for octal)."""
    cdef uint32_t address = 0
    cdef unsigned int octets = 0, value = 0, digits = 0
    cdef size_t i
    for i in range(size + 1):
        if i == size or text[i] == c".":
            if digits == 0 or octets == 4:
                return False
            address = address << 8 | value
            octets += 1
            value = digits = 0
        elif c"0" <= text[i] <= c"9" and not (digits and value == 0):
            value = value * 10 + (text[i] - c"0")
            digits += 1
            if value > 255:
                return False
        else:
            return False
    prefix.hi = <uint64_t>address << (64 - 8 * octets)
    prefix.lo = 0
    return True


cdef bint read_ipv6(const char *text, size_t size, Prefix *prefix) noexcept nogil:
    cdef char terminated[IPV6_TEXT_ROOM]
    cdef uint8_t packed[16]
    if size >= IPV6_TEXT_ROOM or memchr(text, 0, size) != NULL:
        return False
    memcpy(terminated, text, size)
    terminated[size] = 0
    if inet_pton(AF_INET6, terminated, packed) != 1:
        return False
    prefix.hi = load_be64(packed)
    prefix.lo = load_be64(packed + 8)
    return True


cdef int read_length(const char *text, size_t size, Prefix *prefix) noexcept nogil:
    """Decimal digits into prefix.length. Return 0, or the TEXT_LENGTH_… that describes the fault."""
    cdef unsigned int value = 0
    cdef size_t i
    if size == 0:
        return TEXT_LENGTH_EMPTY
    for i in range(size):
        if not c"0" <= text[i] <= c"9":
            return TEXT_LENGTH_NOT_A_NUMBER
        value = min(value * 10 + (text[i] - c"0"), <unsigned int>256)
    if value > 255:
        return TEXT_LENGTH_OVERFLOW
    prefix.length = value
    return 0


cdef int read_prefix(const char *text, size_t size, Prefix *prefix) noexcept nogil:
    """Read one entry. With TEXT_HOST_BITS_… the prefix is what was probably meant; after other faults it is void."""
    cdef const char *slash = <const char *>memrchr(text, c"/", size)
    cdef size_t address_size = size if slash == NULL else <size_t>(slash - text)
    cdef bint is_ipv6 = memchr(text, c":", address_size) != NULL
    cdef unsigned int width = 128 if is_ipv6 else 32
    cdef int fault
    cdef Prefix given
    if size == 3 and memcmp(text, b"any", 3) == 0:
        return TEXT_ANY
    if not (read_ipv6(text, address_size, prefix) if is_ipv6 else read_ipv4(text, address_size, prefix)):
        return TEXT_BAD_ADDRESS
    prefix.length = width
    if slash != NULL:
        fault = read_length(slash + 1, size - address_size - 1, prefix)
        if fault:
            return fault
        if prefix.length > width:
            return TEXT_LENGTH_TOO_LONG_IPV6 if is_ipv6 else TEXT_LENGTH_TOO_LONG_IPV4
    given = prefix[0]
    clear_host_bits(prefix)
    if given.hi != prefix.hi or given.lo != prefix.lo:
        return TEXT_HOST_BITS_IPV6 if is_ipv6 else TEXT_HOST_BITS_IPV4
    if is_ipv6 and prefix.length >= 96 and is_ipv4_mapped(prefix.hi, prefix.lo):
        prefix.hi = prefix.lo << 32
        prefix.lo = 0
        prefix.length -= 96
        return TEXT_IPV4
    return TEXT_IPV6 if is_ipv6 else TEXT_IPV4


cdef int read_entries(list entries, Prefix *ipv4, size_t *ipv4_count, Prefix *ipv6, size_t *ipv6_count) except -1:
    """Read all entries into two arrays with room for each of them. Raises CidrError, TypeError."""
    cdef list problems = []
    cdef Prefix prefix
    cdef int outcome
    cdef size_t ipv4_found = 0, ipv6_found = 0
    for entry in entries:
        if not isinstance(entry, str):
            raise TypeError(f"a CIDR must be a string, not {type(entry).__name__}")
        outcome = TEXT_BAD_ADDRESS
        if PyUnicode_IS_ASCII(entry):
            outcome = read_prefix(PyUnicode_DATA(entry), PyUnicode_GET_LENGTH(entry), &prefix)
        if outcome == TEXT_IPV4:
            ipv4[ipv4_found] = prefix
            ipv4_found += 1
        elif outcome == TEXT_IPV6:
            ipv6[ipv6_found] = prefix
            ipv6_found += 1
        elif outcome == TEXT_ANY:
            memset(&ipv4[ipv4_found], 0, sizeof(Prefix))
            memset(&ipv6[ipv6_found], 0, sizeof(Prefix))
            ipv4_found += 1
            ipv6_found += 1
        else:
            problems.append(f"{entry}: {entry} is not a valid CIDR: {fault_text(entry, outcome, &prefix)}")
    if problems:
        raise CidrError(problems)
    ipv4_count[0] = ipv4_found
    ipv6_count[0] = ipv6_found
    return 0


# --- writing ----------------------------------------------------------------------------------------------

cdef str prefix_text(const Prefix *prefix, bint is_ipv6):
    """A prefix as KumoMTA writes it: RFC 5952 text, a single host without its length."""
    if is_ipv6:
        address = IPv6Address(<object>prefix.hi << 64 | <object>prefix.lo)
    else:
        address = IPv4Address(prefix.hi >> 32)
    return str(address) if prefix.length == address.max_prefixlen else f"{address}/{prefix.length}"


cdef dict FAULT_TEXTS = {
    TEXT_BAD_ADDRESS: "couldn't parse address in network: invalid IP address syntax",
    TEXT_LENGTH_EMPTY: "couldn't parse length in network: cannot parse integer from empty string",
    TEXT_LENGTH_NOT_A_NUMBER: "couldn't parse length in network: invalid digit found in string",
    TEXT_LENGTH_OVERFLOW: "couldn't parse length in network: number too large to fit in target type",
    TEXT_LENGTH_TOO_LONG_IPV4:
        "invalid length for network: Network length {length} is too long for Ipv4 (maximum: 32)",
    TEXT_LENGTH_TOO_LONG_IPV6:
        "invalid length for network: Network length {length} is too long for Ipv6 (maximum: 128)",
    TEXT_HOST_BITS_IPV4: "host part of address was not zero",
    TEXT_HOST_BITS_IPV6: "host part of address was not zero",
}


cdef str fault_text(str entry, int fault, const Prefix *prefix):
    """What is wrong with an entry, and what was probably meant. `prefix` is as read_prefix left it."""
    cdef str meant = ""
    cdef str text = FAULT_TEXTS[fault].format(length=prefix.length)
    if fault == TEXT_HOST_BITS_IPV4 or fault == TEXT_HOST_BITS_IPV6:
        meant = prefix_text(prefix, fault == TEXT_HOST_BITS_IPV6)
    else:
        meant = repaired(entry)
    if meant:
        return f"{text}. Did you mean {meant}?"
    if fault == TEXT_BAD_ADDRESS:
        if not entry.strip():
            return f"{text}. The entry is empty"
        if LOOKS_LIKE_HOST_NAME.fullmatch(entry.strip()):
            return f"{text}. Host names are not looked up: list the addresses"
    return text


# An address, perhaps in brackets, with a zone, a port, a length or a netmask.
cdef object ADORNED_ADDRESS = re.compile(
    r"(?:\[([0-9a-f:.]+)(?:%\w+)?\]|([0-9.]+|[0-9a-f:.]+(?=%))(?:%\w+)?)(?::\d+)?(/[0-9.]+)?", re.IGNORECASE
)
cdef object LOOKS_LIKE_HOST_NAME = re.compile(r"[\w.-]*[^\W\d][\w.-]*(:\d+)?(/\d+)?")


cdef str repaired(str entry):
    """The prefix in an entry that has too much around it, normalised; empty if there is none."""
    cdef str bare = re.sub(r"\s*/\s*", "/", entry.strip())
    if bare.lower() in ("any", "any/0", "all", "*"):
        return "any"
    match = ADORNED_ADDRESS.fullmatch(bare)
    if match is None:
        return ""
    try:
        network = ip_network((match[1] or match[2]) + (match[3] or ""), strict=False)
    except ValueError:
        return ""
    return str(network.network_address) if network.num_addresses == 1 else str(network)
