#!/bin/sh
# Installs what tests/test_shipping_brokers.py runs for `make brokers`: Kafka's jars into the directory $1, by Maven, and
# RabbitMQ from Debian, as root, without starting it.
set -e
if [ ! -e "$1/.complete" ] && ! command -v mvn >/dev/null 2>&1; then
    echo "brokers: installing Maven"
    apt-get -qq update
    DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends maven >/dev/null
fi
if [ ! -e "$1/.complete" ]; then
    echo "brokers: Kafka by Maven (390 MB) into $1"
    mvn -q -B -f "$(dirname "$0")/pom.xml" dependency:copy-dependencies -DoutputDirectory="$(realpath -m "$1")"
    touch "$1/.complete"
fi
[ -x /usr/lib/rabbitmq/bin/rabbitmq-server ] && exit 0
if [ ! -e /usr/sbin/policy-rc.d ]; then
    trap 'rm -f /usr/sbin/policy-rc.d' EXIT
    printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
    chmod 755 /usr/sbin/policy-rc.d
fi
echo "brokers: installing RabbitMQ"
apt-get -qq update
DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends rabbitmq-server
