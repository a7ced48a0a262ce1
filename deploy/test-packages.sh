#!/bin/sh
# Installs the Debian packages of the programs that tests use, as root; tests/programs.txt is the table. Where that is
# not possible it says so: the tests that need a missing one skip themselves with the reason.
cd "$(dirname "$0")/.." || exit 1
PATH="$PATH:/usr/sbin:/sbin"
packages=
{
    while IFS='|' read -r program proof _ needed; do
        case $program in "#"*) continue ;; esac
        program=$(echo $program)
        if ! command -v "$program" >/dev/null 2>&1 || ! sh -c "$proof" >/dev/null 2>&1 </dev/null; then
            for package in $needed; do
                case " $packages " in *" $package "*) continue ;; esac
                case $package in go:*) ;; *) packages="$packages $package" ;; esac
            done
        fi
    done
    [ -n "$packages" ] || exit 0
    unable="the tests that need them will be skipped"
    command -v apt-get >/dev/null 2>&1 || { echo "no Debian here to install$packages from: $unable" >&2; exit 0; }
    [ "$(id -u)" = 0 ] || { echo "not root, so not installing Debian packages for the tests:$packages ($unable)" >&2; exit 0; }
    echo "installing Debian packages for the tests:$packages"
    export DEBIAN_FRONTEND=noninteractive
    # for its tools alone: it gets no configuration, so nothing starts or listens
    case $packages in *postfix*)
        echo "postfix postfix/main_mailer_type select No configuration" | debconf-set-selections 2>/dev/null ;;
    esac
    # likewise, by Debian's policy-rc.d
    case $packages in *prometheus* | *redis-server* | *haproxy* | *nats-server*)
        if [ ! -e /usr/sbin/policy-rc.d ]; then
            trap 'rm -f /usr/sbin/policy-rc.d' EXIT
            printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
            chmod 755 /usr/sbin/policy-rc.d
        fi ;;
    esac
    said=$(mktemp)
    if ! { apt-get -qq update && apt-get -qq install -y --no-install-recommends $packages; } >"$said" 2>&1 </dev/null; then
        tail -n 3 "$said" >&2
        echo "not installed: $unable" >&2
    fi
    rm -f "$said"
} <tests/programs.txt
exit 0
