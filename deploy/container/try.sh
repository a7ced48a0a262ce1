#!/bin/sh
# Builds the image with buildah and runs it once, for make; as root, with neither a daemon nor a registry of its own:
# the build is isolated by chroot, and BASE unless given is a Debian from debootstrap (SUITE, MIRROR). CA: a file with
# certificates that pip has to trust besides. What is missing of these programs is installed from Debian, and said.
set -eu
cd "$(dirname "$0")/../.."
# mounts are gone with their namespace
[ -n "${RELAY_GATEWAY_MOUNTS:-}" ] || RELAY_GATEWAY_MOUNTS=own exec unshare --mount --propagation private "$0" "$@"
WORK=$(mktemp -d /var/tmp/relay-gateway-container.XXXXXX)
SUITE=${SUITE:-bookworm}
TIMEOUT=60
export STORAGE_DRIVER=vfs BUILDAH_ISOLATION=chroot

b() { buildah --root "$WORK/storage" --runroot "$WORK/run" "$@"; }

running=
finish() {
    [ -z "$running" ] || kill "$running" 2>/dev/null || true
    # the image's, too, which buildah has mounted
    awk -v work="$WORK/" 'index($2, work) == 1 { print $2 }' /proc/mounts | sort -r | xargs -r umount -l || true
    rm -rf --one-file-system "$WORK"
}
trap finish EXIT
trap 'exit 1' INT TERM

fail() {
    echo "container: $1" >&2
    [ -z "${2:-}" ] || tail -n 20 "$2" >&2
    exit 1
}

# The words are PROGRAM:PACKAGE.
need() {
    missing=
    for each in "$@"; do command -v "${each%:*}" >/dev/null 2>&1 || missing="$missing ${each#*:}"; done
    [ -n "$missing" ] || return 0
    command -v apt-get >/dev/null 2>&1 || fail "needs$missing"
    echo "container: installing$missing"
    apt-get -qq update >"$WORK/log" 2>&1 || fail "no packages to be had" "$WORK/log"
    # shellcheck disable=SC2086 # a word is a package
    DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends $missing >"$WORK/log" 2>&1 ||
        fail "$missing cannot be installed" "$WORK/log"
}

base() {
    echo "container: a Debian to build on"
    debootstrap --variant=minbase "$SUITE" "$WORK/base" ${MIRROR:+"$MIRROR"} >"$WORK/log" 2>&1 || fail debootstrap "$WORK/log"
    if [ -n "${CA:-}" ]; then
        cp "$CA" "$WORK/base/etc/ca-for-pip.crt"
        printf '[global]\ncert = /etc/ca-for-pip.crt\n' >"$WORK/base/etc/pip.conf"
    fi
    container=$(b from scratch)
    b add --quiet "$container" "$WORK/base" / >/dev/null
    b commit --quiet "$container" localhost/base >/dev/null
    b rm "$container" >/dev/null
    rm -rf "$WORK/base"
    BASE=localhost/base
}

# The image's root, which cannot be written to but for the places that docs/containers.md names.
mounted() {
    container=$(b from relay-gateway)
    mkdir "$WORK/root" "$WORK/data"
    chown 10025:10025 "$WORK/data"
    mount --bind "$(b mount "$container")" "$WORK/root"
    mount -o remount,bind,ro "$WORK/root"
    mount -t tmpfs -o mode=1777 tmpfs "$WORK/root/tmp"
    mount -t tmpfs -o uid=10025,gid=10025,mode=0700 tmpfs "$WORK/root/run/relay-gateway"
    mount --bind "$WORK/data" "$WORK/root/var/lib/relay-gateway"
    mount --rbind /dev "$WORK/root/dev"
    mount -t proc proc "$WORK/root/proc"
    b inspect --type image --format '{{range .Docker.Config.Env}}{{println .}}{{end}}' relay-gateway >"$WORK/environment"
}

# As the image's user, without root's rights or a way to them.
as_image() {
    # shellcheck disable=SC2046 # a variable is a word
    exec setpriv --no-new-privs chroot --userspec=10025:10025 "$WORK/root" env -i $(cat "$WORK/environment") "$@"
}

inside() { (as_image "$@"); }

need buildah:buildah setpriv:util-linux
[ -n "${BASE:-}" ] || { need debootstrap:debootstrap && base; }
echo "container: building"
b build --format docker --build-arg BASE="$BASE" --file deploy/container/Containerfile --tag relay-gateway . \
    >"$WORK/log" 2>&1 || fail "not built" "$WORK/log"
mounted
echo "container: $(inside relay-gateway --version), $(du -sh "$(b mount "$container")" | cut -f 1)"
inside relay-gateway check --strict /etc/relay-gateway/init.lua
! inside sh -c 'echo x >/etc/relay-gateway/init.lua' 2>/dev/null || fail "the root can be written to"
as_image relay-gateway run --policy /etc/relay-gateway/init.lua --announce /tmp/announced >"$WORK/log" 2>&1 &
running=$!
waited=0
until [ -e "$WORK/root/tmp/announced" ]; do
    kill -0 "$running" 2>/dev/null && [ $waited -lt $TIMEOUT ] || fail "not ready" "$WORK/log"
    sleep 1
    waited=$((waited + 1))
done
b inspect --type image --format '{{index .Docker.Config.Healthcheck.Test 3}}' relay-gateway >"$WORK/root/tmp/health.py"
inside python /tmp/health.py || fail "not healthy" "$WORK/log"
inside relay-gateway send 127.0.0.1:2525 --to you@example.com --quiet
[ "$(find "$WORK/data/maildir/new" -type f | wc -l)" = 1 ] || fail "no message in the Maildir" "$WORK/log"
inside relay-gateway drain
kill "$running"
wait "$running" || fail "no clean end" "$WORK/log"
running=
echo "container: ready, healthy, a message taken, drained; user $(stat -c %u "$WORK"/data/log/* | sort -u), root read-only"
