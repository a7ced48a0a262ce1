#!/bin/sh
# Installs the Debian packages whose programs the tests use (swaks; curl; smtp-source, smtp-sink and postfix itself).
# Where that is not possible it says so: the tests that need a missing one skip themselves with the reason.
missing=
for pair in swaks:swaks smtp-source:postfix curl:curl; do
    PATH="$PATH:/usr/sbin" command -v "${pair%%:*}" >/dev/null 2>&1 || missing="$missing ${pair##*:}"
done
[ -n "$missing" ] || exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
    export DEBIAN_FRONTEND=noninteractive
    { apt-get -qq update && apt-get -qq install -y --no-install-recommends $missing; } >/dev/null 2>&1 && exit 0
fi
echo "test clients not installed:$missing (the tests that need them will be skipped)" >&2
exit 0
