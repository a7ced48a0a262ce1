"""Brokers as sinks, real ones: killed and started again in the middle; what they store is counted.

nats-server runs wherever it is there. RabbitMQ and Kafka take long to start: `make brokers` installs and runs them.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import ssl
import subprocess
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import aio_pika
import nats
import pytest
from confluent_kafka import Consumer, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic
from nats.aio.client import Client
from nats.errors import Error

from gateway.shipments import AmqpSettings, KafkaSettings, NatsSettings, Secret, Shipment
from gateway.shipping.shipper import Shipper
from tests.ports import free_port
from tests.programs import program
from tests.shipping import begin, line

RECORDS = 300
PATIENCE = 60.0


class Broker:
    """A program that is killed and started again with the same files and port."""

    def __init__(self, command: list[str], is_up: Callable[[], Awaitable[bool]], environment: dict[str, str]) -> None:
        self._command, self._is_up, self._environment = command, is_up, environment
        self._process: subprocess.Popen[bytes] | None = None

    async def start(self) -> None:
        self._process = subprocess.Popen(
            self._command,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, **self._environment},
            start_new_session=True,
        )
        deadline = time.monotonic() + PATIENCE
        while not await self._is_up():
            assert time.monotonic() < deadline, "the broker does not start"
            await asyncio.sleep(0.05)

    def kill(self) -> None:
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(30)
            self._process = None


@contextmanager
def ending(broker: Broker) -> Iterator[Broker]:
    try:
        yield broker
    finally:
        broker.kill()


def of_here(folder: Path) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1, and its key."""
    certificate, key = folder / "cert.pem", folder / "key.pem"
    made = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN=127.0.0.1"
    made = f"{made} -addext subjectAltName=IP:127.0.0.1 -out {certificate} -keyout {key}"
    subprocess.run(made.split(), check=True, capture_output=True)
    return certificate, key


def noted(logs: Path, shipment: Shipment) -> str:
    """How far it is, as its state says."""
    place = logs / ".ship" / f"{shipment.name}.place"
    return place.read_text() if place.exists() else ""


async def until(holds: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline, f"still not: {what}"
        await asyncio.sleep(0.02)


async def ship_through_a_restart(shipment: Shipment, logs: Path, broker: Broker) -> dict[str, int]:
    """Ships RECORDS, while the broker is killed and started again and the shipper cut off; returns the counts."""
    counts: dict[str, int] = {}

    def tell(_: object, told: Any) -> None:
        for name, count in told.counts.items():
            counts[name] = counts.get(name, 0) + count

    segment = begin(logs)
    for first in range(0, RECORDS, 100):
        segment.add(b"".join(map(line, range(first, first + 100))))
        segment.flush()
        task = asyncio.create_task((shipper := Shipper(shipment, tell)).run(asyncio.Event()))
        await until(lambda shipper=shipper: shipper.progress is not None, "a start")
        if first == 0:
            await asyncio.sleep(0)
        elif first == 100:
            broker.kill()
            await until(lambda shipper=shipper: shipper._last_failure != "", "a failure")
            await broker.start()
        await until(lambda: str(segment.size) in noted(logs, shipment), "all of it acknowledged")
        task.cancel()  # nothing is closed in order
        await asyncio.wait([task])
    segment.finish()
    return counts


# --- NATS JetStream ---------------------------------------------------------------------------------------------------


def nats_server(tmp_path: Path, *options: str, tls: ssl.SSLContext | None = None) -> tuple[Broker, str]:
    port = free_port()
    url = f"nats://127.0.0.1:{port}"

    async def is_up() -> bool:
        client = Client()
        try:
            await client.connect(
                url.replace("nats://", "nats://ship:s3cret@") if options else url,
                allow_reconnect=False,
                connect_timeout=1,
                error_cb=_ignore,
                tls=tls,
            )
            await client.jetstream().account_info()
        except (Error, OSError):
            return False
        finally:
            await client.close()
        return True

    command = [program("nats-server"), "-a", "127.0.0.1", "-p", str(port), "-js", "-sd", str(tmp_path / "js"), *options]
    return Broker(command, is_up, {}), url


async def _ignore(error: Exception) -> None:
    pass


async def stored_in_stream(url: str, stream: str) -> list[tuple[str, int]]:
    client = await nats.connect(url, error_cb=_ignore)
    try:
        subscription = await client.jetstream().subscribe("records.>", stream=stream, ordered_consumer=True)
        count = (await client.jetstream().stream_info(stream)).state.messages
        found = [await subscription.next_msg(5) for _ in range(count)]
        return [(message.subject, json.loads(message.data)["number"]) for message in found]
    finally:
        await client.close()


def test_jetstream_stores_each_record_once_although_both_sides_are_killed(tmp_path):
    broker, url = nats_server(tmp_path)
    settings = NatsSettings((url,), "records.{{ type }}", timeout=5.0)
    shipment = Shipment(
        "nats", settings, (str(tmp_path / "logs"),), max_batch_records=40, max_batch_delay=0.05, max_retry_interval=0.2
    )

    async def run() -> tuple[dict[str, int], list[tuple[str, int]]]:
        await broker.start()
        client = await nats.connect(url, error_cb=_ignore)
        await client.jetstream().add_stream(name="RECORDS", subjects=["records.>"])
        await client.close()
        counts = await ship_through_a_restart(shipment, tmp_path / "logs", broker)
        return counts, await stored_in_stream(url, "RECORDS")

    with ending(broker):
        counts, stored = asyncio.run(run())
    assert sorted(number for _, number in stored) == list(range(RECORDS))  # the stream drops what comes twice
    assert {subject for subject, _ in stored} == {"records.Delivery"}
    assert counts["failures"] > 0


def test_without_a_stream_nothing_is_acknowledged_and_the_reason_is_said(tmp_path, caplog):
    broker, url = nats_server(tmp_path, "--user", "ship", "--pass", "s3cret")
    (tmp_path / "password").write_text("s3cret\n")
    settings = NatsSettings((url,), "nowhere", user="ship", password=Secret(path=str(tmp_path / "password")))
    logs = tmp_path / "logs"
    segment = begin(logs)
    segment.add(line(1))
    segment.finish()

    async def run() -> list[bool]:
        await broker.start()
        done = []
        for each in (settings, NatsSettings((url,), "nowhere", user="ship", password=Secret(text="wr0ng"))):
            shipper = Shipper(Shipment("nats", each, (str(logs),)), lambda *_: None)
            done.append(await shipper.run(asyncio.Event(), once=True))
        return done

    with ending(broker):
        assert asyncio.run(run()) == [False, False]
    assert "no stream takes this subject" in caplog.text
    assert "cannot connect" in caplog.text
    assert "s3cret" not in caplog.text + repr(settings)
    assert "wr0ng" not in caplog.text


def test_jetstream_is_reached_under_tls_by_who_has_the_password_and_trusts_its_certificate(tmp_path, caplog):
    certificate, key = of_here(tmp_path)
    keys = ("--tls", "--tlscert", str(certificate), "--tlskey", str(key))
    context = ssl.create_default_context(cafile=certificate)
    broker, url = nats_server(tmp_path, "--user", "ship", "--pass", "s3cret", *keys, tls=context)
    address = url.replace("nats://", "tls://")
    good = NatsSettings((address,), "records", user="ship", password=Secret(text="s3cret"), ca_file=str(certificate))
    logs = tmp_path / "logs"
    segment = begin(logs)
    segment.add(line(1))
    segment.finish()

    async def run() -> list[bool]:
        await broker.start()
        client = await nats.connect(url.replace("//", "//ship:s3cret@"), error_cb=_ignore, tls=context)
        await client.jetstream().add_stream(name="RECORDS", subjects=["records"])
        await client.close()
        done = []
        for number, each in enumerate((replace(good, ca_file=None), good)):
            shipper = Shipper(Shipment(f"nats{number}", each, (str(logs),)), lambda *_: None)
            done.append(await shipper.run(asyncio.Event(), once=True))
        return done

    with ending(broker):
        assert asyncio.run(run()) == [False, True]
    assert "cannot connect" in caplog.text
    assert "s3cret" not in caplog.text


def test_a_record_beyond_the_servers_limit_is_set_aside(tmp_path):
    limits = tmp_path / "nats.conf"
    limits.write_text("max_payload: 2000\n")
    broker, url = nats_server(tmp_path)
    broker._command += ["-c", str(limits)]
    logs = tmp_path / "logs"
    segment = begin(logs)
    segment.add(line(1) + line(2, text="x" * 3000) + line(3))
    segment.finish()
    shipment = Shipment("nats", NatsSettings((url,), "records"), (str(logs),))

    async def run() -> bool:
        await broker.start()
        client = await nats.connect(url, error_cb=_ignore)
        await client.jetstream().add_stream(name="RECORDS", subjects=["records"])
        await client.close()
        return await Shipper(shipment, lambda *_: None).run(asyncio.Event(), once=False)

    with ending(broker):
        asyncio.run(asyncio.wait_for(_until_kept(run, logs), 30))
    [kept] = (logs / ".ship" / "nats.refused").read_text().splitlines()
    assert json.loads(json.loads(kept)["body"])["number"] == 2


async def _until_kept(run: Callable[[], Awaitable[bool]], logs: Path) -> None:
    task = asyncio.ensure_future(run())
    refused = logs / ".ship" / "nats.refused"
    place = logs / ".ship" / "nats.place"
    await until(lambda: refused.exists() and place.exists() and "-1" in place.read_text(), "all of it done with")
    task.cancel()
    await asyncio.wait([task])


# --- those that take long ---------------------------------------------------------------------------------------------

HEAVY = os.environ.get("BROKERS")  # the directory with Kafka's jars, see `make brokers`
heavy = pytest.mark.skipif(HEAVY is None, reason="NOT CHECKED: RabbitMQ and Kafka take long: `make brokers`")


def end_names(port: str) -> None:
    """Ends Erlang's daemon of names, which does not go before it has noticed that its nodes are gone."""
    deadline = time.monotonic() + 10
    while b"Killed" not in subprocess.run(["epmd", "-port", port, "-kill"], capture_output=True, check=False).stdout:
        assert time.monotonic() < deadline, "epmd does not end"
        time.sleep(0.1)


UNDER_TLS = """\
listeners.tcp = none
listeners.ssl.1 = 127.0.0.1:{port}
ssl_options.cacertfile = {certificate}
ssl_options.certfile = {certificate}
ssl_options.keyfile = {key}
"""


@heavy
@pytest.mark.timeout(300)
def test_rabbitmq_has_each_record_under_tls_although_both_sides_are_killed(tmp_path):
    port = free_port()
    certificate, key = of_here(tmp_path)
    key.chmod(0o644)  # RabbitMQ runs as a user of its own
    tmp_path.chmod(0o755)
    config = tmp_path / "rabbitmq.conf"
    config.write_text(UNDER_TLS.format(port=port, certificate=certificate, key=key))
    context = ssl.create_default_context(cafile=certificate)
    url = f"amqps://guest:guest@127.0.0.1:{port}/"
    daemon = str(free_port())
    environment = {
        "RABBITMQ_NODENAME": f"ship{port}@localhost", "RABBITMQ_CONFIG_FILE": str(config),
        "ERL_EPMD_PORT": daemon, "RABBITMQ_DIST_PORT": str(free_port()),
        "RABBITMQ_MNESIA_BASE": str(tmp_path / "mnesia"), "RABBITMQ_LOG_BASE": str(tmp_path / "log"),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(tmp_path / "plugins"), "HOME": str(tmp_path),
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
    }  # fmt: skip

    async def is_up() -> bool:
        try:
            await (await aio_pika.connect(url, timeout=2, ssl_context=context)).close()
        except (OSError, aio_pika.exceptions.AMQPError):
            return False
        return True

    broker = Broker(["/usr/lib/rabbitmq/bin/rabbitmq-server"], is_up, environment)
    shipment = Shipment(
        "amqp", AmqpSettings(url, "records", ca_file=str(certificate)), (str(tmp_path / "logs"),),
        max_batch_records=40, max_batch_delay=0.05, max_retry_interval=0.2,
    )  # fmt: skip

    async def run() -> tuple[dict[str, int], list[tuple[str, int]]]:
        await broker.start()
        connection = await aio_pika.connect(url, ssl_context=context)
        await (await connection.channel()).declare_queue("records", durable=True)
        await connection.close()
        counts = await ship_through_a_restart(shipment, tmp_path / "logs", broker)
        connection = await aio_pika.connect(url, ssl_context=context)
        queue = await (await connection.channel()).declare_queue("records", durable=True)
        found = []
        while (message := await queue.get(no_ack=True, fail=False)) is not None:
            found.append((message.message_id, json.loads(message.body)["number"]))
        await connection.close()
        return counts, found

    try:
        with ending(broker):
            counts, stored = asyncio.run(run())
    finally:
        end_names(daemon)
    assert sorted(dict(stored).values()) == list(range(RECORDS))
    assert counts["failures"] > 0
    print(f"RabbitMQ: {len(stored)} messages for {RECORDS} records")


KRAFT = """\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
listeners=CLIENTS://127.0.0.1:{port},ITSELF://127.0.0.1:{itself},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=CLIENTS://127.0.0.1:{port},ITSELF://127.0.0.1:{itself}
listener.security.protocol.map=CLIENTS:SASL_SSL,ITSELF:PLAINTEXT,CONTROLLER:PLAINTEXT
listener.name.clients.sasl.enabled.mechanisms=PLAIN
listener.name.clients.plain.sasl.jaas.config=\
    org.apache.kafka.common.security.plain.PlainLoginModule required user_ship="s3cret";
ssl.keystore.type=PEM
ssl.keystore.location={keys}
controller.listener.names=CONTROLLER
inter.broker.listener.name=ITSELF
log.dirs={logs}
offsets.topic.replication.factor=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
"""


@heavy
@pytest.mark.timeout(300)
def test_kafka_has_each_record_under_tls_with_a_password_although_both_sides_are_killed(tmp_path, caplog):
    port = free_port()
    certificate, key = of_here(tmp_path)
    keys = tmp_path / "keys.pem"
    keys.write_text(key.read_text() + certificate.read_text())
    known = {"security.protocol": "SASL_SSL", "sasl.mechanism": "PLAIN", "sasl.username": "ship"}
    known["ssl.ca.location"] = str(certificate)
    client = {**known, "bootstrap.servers": f"127.0.0.1:{port}", "sasl.password": "s3cret", "log_level": 0}
    properties = tmp_path / "kraft.properties"
    places = {"controller": free_port(), "itself": free_port(), "logs": tmp_path / "kafka", "keys": keys}
    properties.write_text(KRAFT.format(port=port, **places))
    java = ["java", "-Xmx400m", "-cp", f"{HEAVY}/*"]
    cluster = "MkU3OEVBNTcwNTJENDM2Qg"
    subprocess.run(
        [*java, "kafka.tools.StorageTool", "format", "-t", cluster, "-c", str(properties)],
        check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip

    async def is_up() -> bool:
        return await asyncio.to_thread(_kafka_is_up, client)

    broker = Broker([*java, "kafka.Kafka", str(properties)], is_up, {})
    settings = KafkaSettings(
        (client["bootstrap.servers"],), "records", "{{ id }}", {"reconnect.backoff.max.ms": 500, **known},
        Secret(text="s3cret"), timeout=5.0,
    )  # fmt: skip
    shipment = Shipment(
        "kafka", settings, (str(tmp_path / "logs"),), max_batch_records=40, max_batch_delay=0.05, max_retry_interval=0.2
    )
    wrong = replace(shipment, name="wrong", sink=replace(settings, password=Secret(text="wr0ng")))

    async def run() -> dict[str, int]:
        await broker.start()
        topic = NewTopic("records", num_partitions=1, replication_factor=1)
        administrator = AdminClient(client)
        administrator.create_topics([topic])["records"].result(30)
        counts = await ship_through_a_restart(shipment, tmp_path / "logs", broker)
        assert not await Shipper(wrong, lambda *_: None).run(asyncio.Event(), once=True)
        return counts

    with ending(broker):
        counts = asyncio.run(run())
        stored = _stored_in_kafka(client)
    assert "s3cret" not in caplog.text and "wr0ng" not in caplog.text
    assert sorted(dict(stored).values()) == list(range(RECORDS))
    assert counts["failures"] > 0
    print(f"Kafka: {len(stored)} messages for {RECORDS} records")


def _kafka_is_up(client: dict[str, Any]) -> bool:
    try:
        AdminClient(client).list_topics(timeout=1)
    except KafkaException:
        return False
    return True


def _stored_in_kafka(client: dict[str, Any]) -> list[tuple[bytes, int]]:
    consumer = Consumer({**client, "group.id": "test", "enable.auto.commit": False})
    try:
        _, end = consumer.get_watermark_offsets(TopicPartition("records", 0), timeout=30)
        consumer.assign([TopicPartition("records", 0, 0)])
        found = []
        while len(found) < end:
            message = consumer.poll(30)
            assert message is not None
            found.append((dict(message.headers())["id"], json.loads(message.value())["number"]))
        return found
    finally:
        consumer.close()
