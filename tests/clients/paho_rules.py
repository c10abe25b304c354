"""Rules that paho-mqtt holds the broker to: `paho_rules.py PORT VERSION RULE`, VERSION 311 or 5.

A rule is a function below. It ends in silence, or says what was not so. Whatever it waits for comes
as an event; PATIENCE is only how long it waits in vain.
"""

import queue
import sys

from paho.mqtt.client import CallbackAPIVersion, Client, MQTTv5, MQTTv311
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

PATIENCE = 20
QOS = (0, 1, 2)


class Peer:
    """One connection, whose events are taken one by one."""

    def __init__(self, name, clean=True, expiry_s=0, will=None, **connect_properties):
        self.name, self.events, self.kinds = name, queue.Queue(), []
        more = {} if VERSION == MQTTv5 else {"clean_session": clean}
        self.client = client = Client(CallbackAPIVersion.VERSION2, name, protocol=VERSION, reconnect_on_failure=False, **more)
        client.on_connect = lambda _c, _u, flags, reason, props: self.put("connect", (flags.session_present, reason.value, props))
        client.on_subscribe = lambda _c, _u, mid, reasons, _p: self.put("suback", [r.value for r in reasons])
        client.on_unsubscribe = lambda _c, _u, mid, reasons, _p: self.put("unsuback", [r.value for r in reasons])
        client.on_publish = lambda _c, _u, mid, reason, _p: self.put("published", (mid, reason.value))
        client.on_message = lambda _c, _u, message: self.put("message", message)
        client.on_disconnect = lambda _c, _u, flags, reason, _p: self.put("disconnect", reason.value)
        if will:
            client.will_set(**will)
        arguments = {}
        if VERSION == MQTTv5:
            properties = Properties(PacketTypes.CONNECT)
            properties.SessionExpiryInterval = expiry_s
            for key, value in connect_properties.items():
                setattr(properties, key, value)
            arguments = {"clean_start": clean, "properties": properties}
        client.connect("127.0.0.1", PORT, **arguments)
        client.loop_start()
        self.session_present, code, self.connack = self.take("connect")
        assert code == 0, f"{name}: CONNACK {code}"

    def put(self, kind, value):
        self.events.put((kind, value))

    def take(self, kind):
        """The next event of this kind; others wait."""
        for at, (found, value) in enumerate(self.kinds):
            if found == kind:
                del self.kinds[at]
                return value
        while True:
            try:
                found, value = self.events.get(timeout=PATIENCE)
            except queue.Empty:
                raise AssertionError(f"{self.name}: no {kind} within {PATIENCE} s; there is {self.kinds}") from None
            if found == kind:
                return value
            self.kinds.append((found, value))

    def subscribe(self, filter, qos=0, **options):
        if VERSION == MQTTv5:
            properties = Properties(PacketTypes.SUBSCRIBE)
            if "identifier" in options:
                properties.SubscriptionIdentifier = options.pop("identifier")
            self.client.subscribe(filter, options=SubscribeOptions(qos=qos, **options), properties=properties)
        else:
            self.client.subscribe(filter, qos)
        granted = self.take("suback")
        assert granted == [qos], f"{self.name}: {filter} was granted {granted}, not {[qos]}"

    def publish(self, topic, payload, qos=0, retain=False, **properties):
        """Returns once it has been answered."""
        arguments = {}
        if VERSION == MQTTv5:
            arguments["properties"] = filled(properties)
        info = self.client.publish(topic, payload, qos, retain, **arguments)
        mid, code = self.take("published")
        assert mid == info.mid and code < 0x80, f"{self.name}: {topic} was answered with {code:#x}"
        return code

    def message(self):
        return self.take("message")

    def texts(self, count):
        return [self.message().payload.decode() for _ in range(count)]

    def goodbye(self):
        self.client.disconnect()
        self.take("disconnect")
        self.client.loop_stop()

    def die(self):
        """Closes the socket with nothing said."""
        self.client.socket().shutdown(2)
        self.take("disconnect")
        self.client.loop_stop()


def filled(given):
    properties = Properties(PacketTypes.PUBLISH)
    for key, value in given.items():
        setattr(properties, key, value)
    return properties


def every_qos_arrives_in_order():
    reader, writer = Peer("reader"), Peer("writer")
    for granted in QOS:
        reader.subscribe("lab/+", granted)
        for sent in QOS:
            for n in range(20):
                writer.publish("lab/t", f"{sent}.{n}", sent)
            for n in range(20):
                message = reader.message()
                found = (message.payload.decode(), message.qos, message.retain, message.topic)
                expected = (f"{sent}.{n}", min(sent, granted), False, "lab/t")
                assert found == expected, f"{found}, not {expected}"


def many_in_flight_arrive_once_and_in_order():
    reader, writer = Peer("reader"), Peer("writer")
    for qos in QOS:
        reader.subscribe("lab/t", qos)
        for n in range(500):
            writer.client.publish("lab/t", f"{qos}.{n}", qos)
        found = reader.texts(500)
        assert found == [f"{qos}.{n}" for n in range(500)], found
        for _ in range(500):
            writer.take("published")


def a_will_comes_after_a_death_and_not_after_a_goodbye():
    watcher = Peer("watcher")
    watcher.subscribe("wills/#", 1)
    for name in ("polite", "dead"):
        will = {"topic": f"wills/{name}", "payload": name, "qos": 1}
        peer = Peer(name, will=will)
        peer.goodbye() if name == "polite" else peer.die()
    found = watcher.message()
    assert (found.topic, found.payload) == ("wills/dead", b"dead"), (found.topic, found.payload)


def a_session_is_resumed_with_what_came_meanwhile():
    keeper = Peer("keeper", clean=False, expiry_s=60)
    assert not keeper.session_present
    keeper.subscribe("lab/t", 1)
    keeper.goodbye()
    writer = Peer("writer")
    for qos in QOS:
        writer.publish("lab/t", str(qos), qos)
    keeper = Peer("keeper", clean=False, expiry_s=60)
    assert keeper.session_present, "the session is gone"
    waited = [str(qos) for qos in QOS if qos > 0]
    assert keeper.texts(len(waited)) == waited
    writer.publish("lab/t", "live", 0)
    assert keeper.texts(1) == ["live"], "it listens still"
    keeper.goodbye()
    keeper = Peer("keeper", clean=True)
    assert not keeper.session_present, "clean start found a session"


def a_retained_message_comes_as_asked_for():
    writer = Peer("writer")
    writer.publish("lab/t", "kept", 1, retain=True)
    late = Peer("late")
    late.subscribe("lab/#", 1)
    found = late.message()
    assert (found.payload, found.retain) == (b"kept", True)
    if VERSION == MQTTv5:
        picky = Peer("picky")
        picky.subscribe("lab/#", 1, retainHandling=SubscribeOptions.RETAIN_DO_NOT_SEND, retainAsPublished=True)
        writer.publish("lab/t", "now", 1, retain=True)
        found = picky.message()
        assert (found.payload, found.retain) == (b"now", True), "as published, and nothing before"
        mute = Peer("mute")
        mute.subscribe("lab/#", 1, noLocal=True, retainHandling=SubscribeOptions.RETAIN_DO_NOT_SEND)
        mute.publish("lab/t", "own", 1)
        writer.publish("lab/t", "other", 1)
        assert mute.texts(1) == ["other"], "no local"
    writer.publish("lab/t", "", 1, retain=True)
    writer.publish("lab/u", "else", 1, retain=True)
    later = Peer("later")
    later.subscribe("lab/#", 1)
    assert later.texts(1) == ["else"], "it was cleared"


def properties_arrive_as_they_were_sent():
    reader, writer = Peer("reader"), Peer("writer")
    reader.subscribe("lab/#", 1, identifier=5)
    reader.subscribe("lab/t", 1, identifier=268435455)
    pairs = [("z", "1"), ("a", ""), ("z", "1"), ("schlüssel", "wert ✓")]
    given = {
        "UserProperty": pairs, "ContentType": "text/plain", "ResponseTopic": "answer/here",
        "CorrelationData": bytes(range(256)), "PayloadFormatIndicator": 1, "MessageExpiryInterval": 60,
    }
    writer.publish("lab/t", "hällo", 1, **given)
    found = reader.message().properties
    assert found.UserProperty == pairs, found
    assert sorted(found.SubscriptionIdentifier) == [5, 268435455], found
    assert found.CorrelationData == bytes(range(256)), found
    for key in ("ContentType", "ResponseTopic", "PayloadFormatIndicator"):
        assert getattr(found, key) == given[key], found
    assert 0 < found.MessageExpiryInterval <= 60, found


def a_group_shares_what_comes():
    members = [Peer("one"), Peer("two"), Peer("three")]
    for member in members:
        member.subscribe("$share/crew/lab/#", 1)
    writer = Peer("writer")
    for n in range(30):
        writer.publish("lab/t", str(n), 1)
    # Each has ten: evenly, and none twice.
    found = [member.texts(10) for member in members]
    assert sorted(int(text) for texts in found for text in texts) == list(range(30)), found


def a_topic_alias_stands_for_its_topic():
    reader, writer = Peer("reader"), Peer("writer")
    assert writer.connack.TopicAliasMaximum > 0, writer.connack
    reader.subscribe("lab/#", 1)
    writer.publish("lab/t", "first", 1, TopicAlias=1)
    for text in ("second", "third"):
        writer.publish("", text, 1, TopicAlias=1)
    writer.publish("lab/u", "other", 1, TopicAlias=1)
    writer.publish("", "last", 1, TopicAlias=1)
    found = [(message.topic, message.payload.decode()) for message in (reader.message() for _ in range(5))]
    expected = [("lab/t", text) for text in ("first", "second", "third")]
    assert found == expected + [("lab/u", "other"), ("lab/u", "last")], found


def an_identifier_is_assigned():
    peer = Peer("")
    assert peer.connack.AssignedClientIdentifier, peer.connack
    other = Peer("")
    assert other.connack.AssignedClientIdentifier != peer.connack.AssignedClientIdentifier


if __name__ == "__main__":
    PORT = int(sys.argv[1])
    VERSION = {"311": MQTTv311, "5": MQTTv5}[sys.argv[2]]
    globals()[sys.argv[3]]()
