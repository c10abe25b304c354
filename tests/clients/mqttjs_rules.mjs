// Rules that MQTT.js holds the broker to: `mqttjs_rules.mjs URL VERSION RULE [CA.pem]`, VERSION 311 or 5,
// URL mqtt://, ws:// or wss://.
//
// A rule is a function below. It ends in silence, or says what was not so. Whatever it waits for comes
// as an event; PATIENCE is only how long it waits in vain.
import { strict as assert } from "node:assert";
import { readFileSync } from "node:fs";
import mqtt from "mqtt";

const [url, versionName, rule, ca] = process.argv.slice(2);
const version = { 311: 4, 5: 5 }[versionName];
const PATIENCE = 20_000;
const QOS = [0, 1, 2];
// Messages under way at once. In 5.0 the broker announces how many it takes, and this client sends more
// all the same (it knows no Receive Maximum), which the standard has answered with 0x93; 3.1.1 has no bound.
const AT_ONCE = version === 5 ? 50 : 100;

// An awaited event, in vain for PATIENCE at most.
function soon(what, promise) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`no ${what} within ${PATIENCE} ms`)), PATIENCE);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

class Peer {
  static async connect(clientId, options = {}) {
    const peer = new Peer();
    peer.waiting = [];
    peer.arrived = [];
    const more = ca ? { ca: readFileSync(ca) } : {};
    const client = mqtt.connect(url, { clientId, protocolVersion: version, reconnectPeriod: 0, ...more, ...options });
    peer.client = client;
    client.on("message", (topic, payload, packet) => {
      const message = { topic, text: payload.toString(), qos: packet.qos, retain: packet.retain, properties: packet.properties };
      const waits = peer.waiting.shift();
      waits ? waits(message) : peer.arrived.push(message);
    });
    peer.connack = await soon("CONNACK", new Promise((resolve, reject) => {
      client.once("connect", resolve);
      client.once("error", reject);
    }));
    return peer;
  }

  message() {
    const ready = this.arrived.shift();
    return ready ? Promise.resolve(ready) : soon("message", new Promise((resolve) => this.waiting.push(resolve)));
  }

  async subscribe(filter, options) {
    const granted = await soon("SUBACK", this.client.subscribeAsync(filter, options));
    assert.deepEqual(granted.map((one) => one.qos), [options.qos]);
  }

  publish(topic, text, options) {
    return soon("answer", this.client.publishAsync(topic, text, options));
  }

  goodbye() {
    return soon("close", this.client.endAsync());
  }

  // Closes the stream with nothing said.
  async die() {
    const closed = new Promise((resolve) => this.client.once("close", resolve));
    this.client.stream.destroy();
    await soon("close", closed);
  }
}

const rules = {
  async every_qos_arrives_in_order() {
    const [reader, writer] = [await Peer.connect("reader"), await Peer.connect("writer")];
    for (const granted of QOS) {
      await reader.subscribe("lab/+", { qos: granted });
      for (const sent of QOS) {
        const texts = Array.from({ length: AT_ONCE }, (_, n) => `${sent}.${n}`);
        await Promise.all(texts.map((text) => writer.publish("lab/t", text, { qos: sent })));
        for (const text of texts) {
          const found = await reader.message();
          assert.deepEqual([found.text, found.qos, found.topic], [text, Math.min(sent, granted), "lab/t"]);
        }
      }
    }
  },

  async a_large_message_arrives_whole() {
    const [reader, writer] = [await Peer.connect("reader"), await Peer.connect("writer")];
    await reader.subscribe("lab/t", { qos: 1 });
    const text = "0123456789".repeat(20_000);
    await writer.publish("lab/t", text, { qos: 1 });
    assert.equal((await reader.message()).text, text);
  },

  async a_will_comes_after_a_death_and_not_after_a_goodbye() {
    const watcher = await Peer.connect("watcher");
    await watcher.subscribe("wills/#", { qos: 1 });
    const will = (name) => ({ will: { topic: `wills/${name}`, payload: Buffer.from(name), qos: 1, retain: false } });
    await (await Peer.connect("polite", will("polite"))).goodbye();
    await (await Peer.connect("dead", will("dead"))).die();
    const found = await watcher.message();
    assert.deepEqual([found.topic, found.text], ["wills/dead", "dead"]);
  },

  async a_session_is_resumed_with_what_came_meanwhile() {
    const kept = { clean: false, properties: { sessionExpiryInterval: 60 } };
    const keeper = await Peer.connect("keeper", kept);
    assert.equal(keeper.connack.sessionPresent, false);
    await keeper.subscribe("lab/t", { qos: 1 });
    await keeper.goodbye();
    const writer = await Peer.connect("writer");
    for (const text of ["1", "2"]) await writer.publish("lab/t", text, { qos: 1 });
    const back = await Peer.connect("keeper", kept);
    assert.equal(back.connack.sessionPresent, true);
    assert.deepEqual([(await back.message()).text, (await back.message()).text], ["1", "2"]);
  },

  async a_retained_message_comes_to_who_subscribes_later() {
    const writer = await Peer.connect("writer");
    await writer.publish("lab/t", "kept", { qos: 1, retain: true });
    const late = await Peer.connect("late");
    await late.subscribe("lab/#", { qos: 1 });
    const found = await late.message();
    assert.deepEqual([found.text, found.retain], ["kept", true]);
  },

  // It takes and gives aliases by itself, once it has said how many it takes.
  async a_topic_has_an_alias_both_ways() {
    const aliased = { autoUseTopicAlias: true, autoAssignTopicAlias: true, properties: { topicAliasMaximum: 4 } };
    const [reader, writer] = [await Peer.connect("reader", aliased), await Peer.connect("writer", aliased)];
    assert.ok(writer.connack.properties.topicAliasMaximum > 0, "the broker takes aliases");
    await reader.subscribe("lab/#", { qos: 1 });
    for (let n = 0; n < 30; n += 1) {
      const topic = `lab/${n % 10}`;
      await writer.publish(topic, `${n}`, { qos: 1 });
      const found = await reader.message();
      assert.deepEqual([found.topic, found.text], [topic, `${n}`]);
    }
  },

  async properties_arrive_as_they_were_sent() {
    const [reader, writer] = [await Peer.connect("reader"), await Peer.connect("writer")];
    await reader.subscribe("lab/t", { qos: 1, properties: { subscriptionIdentifier: 9 } });
    const properties = {
      contentType: "text/plain",
      responseTopic: "answer/here",
      correlationData: Buffer.from([0, 255, 1]),
      payloadFormatIndicator: true,
      messageExpiryInterval: 60,
      userProperties: { z: ["1", "2"], a: "3" },
    };
    await writer.publish("lab/t", "hello", { qos: 1, properties });
    const found = { ...(await reader.message()).properties };
    found.userProperties = { ...found.userProperties };
    assert.deepEqual(found, { ...properties, subscriptionIdentifier: 9 });
  },
};

await rules[rule]();
// What is still connected would keep the process.
process.exit(0);
