#!/bin/sh
# Installs, as far as this system allows, the servers that `bench run` measures the gateway beside.
# Postfix (smtp-sink comes with it) becomes an ordinary package; it needs root, and so does running it.
# Exim and OpenSMTPD exclude Postfix as packages: they are only downloaded, and unpacked when they are measured.
# Haraka comes from npm, into a private directory. aiosmtpd and aiosmtplib come with `pip install relay-gateway[bench]`.
# KumoMTA is not installed: name its binary with `bench run --kumod PATH`.
set -u
into=${RELAY_GATEWAY_BENCH_PEERS:-$HOME/.cache/relay-gateway-bench}
mkdir -p "$into/debs"

have() { PATH="$PATH:/usr/sbin:/sbin" command -v "$1" >/dev/null 2>&1; }
say() { echo "setup-peers: $*" >&2; }

if have apt-get; then
    if [ "$(id -u)" = 0 ]; then
        export DEBIAN_FRONTEND=noninteractive
        apt-get -qq update >/dev/null 2>&1 || say "apt-get update failed"
        for package in postfix strace valgrind; do
            case $package in postfix) program=smtp-sink ;; *) program=$package ;; esac
            have "$program" || apt-get -qq install -y --no-install-recommends "$package" >/dev/null || say "$package: not installed"
        done
    else
        say "not root: Postfix, strace and valgrind are not installed for you"
    fi
    for package in exim4-daemon-light exim4-base libidn12 opensmtpd; do
        ls "$into/debs/${package}_"*.deb >/dev/null 2>&1 ||
            (cd "$into/debs" && apt-get -qq download "$package" 2>/dev/null) || say "$package: not downloaded"
    done
else
    say "no apt-get here: install Postfix (with smtp-sink), strace and valgrind yourself; Exim and OpenSMTPD are skipped"
fi

if have npm; then
    [ -d "$into/node_modules/Haraka" ] ||
        npm install --silent --no-fund --no-audit --prefix "$into" Haraka@3.1 || say "Haraka: not installed"
else
    say "npm is not installed: Haraka is skipped (Debian: apt-get install nodejs npm)"
fi
say "peers are in $into"
