#!/bin/sh
# private-root.sh HOME COMMAND...: run COMMAND where the packages in $PACKAGES are unpacked over the system's own files
# and the accounts in $USERS exist, without changing anything outside. To be run by root, in namespaces of its own
# (unshare --mount --pid --fork). HOME is the one directory that is shared with the outside.
set -e
home=$1
shift
layer=$home/.layer
mkdir -p "$layer"
mount -t tmpfs tmpfs "$layer"
mkdir "$layer/upper" "$layer/work" "$layer/root"
for package in $PACKAGES; do
    dpkg -x "$package" "$layer/upper"
done
# Where /lib is a link to /usr/lib, a package's directory of that name must not hide it.
for directory in lib bin sbin; do
    if [ -L "/$directory" ]; then rm -rf "$layer/upper/$directory"; fi
done
mount -t overlay overlay -o "lowerdir=/,upperdir=$layer/upper,workdir=$layer/work" "$layer/root"
mount --rbind /dev "$layer/root/dev"
mount -t proc proc "$layer/root/proc"
# No resolver is asked: OpenSMTPD wants its clients' names before it greets them. "lookup" is for its own library.
rm -f "$layer/root/etc/resolv.conf"
echo "lookup file" >"$layer/root/etc/resolv.conf"
mkdir -p "$layer/root$home"
mount --bind "$home" "$layer/root$home"
for user in $USERS; do
    chroot "$layer/root" useradd --system --no-create-home --shell /usr/sbin/nologin "$user"
done
chroot "$layer/root" mkdir -p -m 711 /var/spool/smtpd /var/lib/opensmtpd/empty
exec chroot "$layer/root" "$@"
