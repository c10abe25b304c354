// The console in a headless Chromium before a node that is played, so that every fault comes when it
// is called for: connections that break, a store that was restored, answers that come late or never.
//
//   node faults.mjs CONSOLE PROTOCOL [NAME]
//
// CONSOLE is the folder of the page, PROTOCOL the text whose sample client is held to the same.
// NAME runs the scenarios that have it in their name. Prints one line for each; exits 1 where one fails.

import { readFileSync } from "node:fs";
import { join } from "node:path";
import { chromium } from "playwright-core";
import { Node, ORIGIN, command } from "./played.mjs";

const [folder, protocol, only = ""] = process.argv.slice(2);
const PATIENCE_MS = 15000;
const AT_ONCE = 4;

const scenarios = {};
scenarios["readings stored while a connection was gone are shown, though none had come before"] = async (page, node) => {
  await open(page);
  await node.end(3000, "draining");
  node.store("pump-2", "17");
  await until("it subscribes again", () => node.asked("subscribe").length === 2);
  same(node.asked("subscribe")[1].since, "c0", "the place it goes on from");
  await until("pump-2 is at 17", async () => (await listed(page, "pump-2")) === "17");
};

scenarios["a page that comes back without a cursor asks what every device has said meanwhile"] = async (page, node) => {
  await page.clock.install();
  for (const device of node.devices) for (let n = 0; n < 3; n++) node.store(device, String(n));
  await open(page);
  await until("pump-2 is at 2", async () => (await listed(page, "pump-2")) === "2");
  node.answers.authenticate = () => true; // for as long as nobody is let in
  await node.end(3000, "draining");
  await page.clock.fastForward(700000);
  for (let n = 10; n < 30; n++) node.store("pump-2", String(n));
  delete node.answers.authenticate;
  await node.end(3004, "authentication_timeout");
  await page.clock.fastForward(20000);
  await until("it subscribes again", () => node.asked("subscribe").length === 2);
  same(node.asked("subscribe")[1].since, undefined, "the place it goes on from");
  await until("pump-2 is at 29", async () => (await listed(page, "pump-2")) === "29");
  await page.locator('[data-testid=device][data-device="pump-2"]').click();
  await page.locator('[data-testid=reading][data-offset="26"]').waitFor();
};

// Runs the sample of section 9, and gives what it prints.
async function sample(page) {
  const text = readFileSync(protocol, "utf8").split("## 9.")[1].match(/```js\n([^]*?)```/)[1];
  const said = [];
  page.on("console", (message) => said.push(`${message.type()}: ${message.text()}`));
  await page.goto(`${ORIGIN}/icon.svg`);
  await page.evaluate((text) => { Math.random = () => 0; const run = document.createElement("p"); run.go = new Function(`${text}; connect("t");`); run.go(); }, text);
  return said;
}

scenarios["the documented client goes on from where it subscribed"] = async (page, node) => {
  const said = await sample(page);
  await until("it subscribes", () => node.asked("subscribe").length === 1);
  await node.end(3000, "draining");
  node.store("pump-1", "5");
  await until("it has the reading", () => said.some((line) => line.includes("pump-1 level 5")));
};

scenarios["the documented client subscribes anew where its cursor is of another life, and says so"] = async (page, node) => {
  const said = await sample(page);
  await until("it subscribes", () => node.asked("subscribe").length === 1);
  node.answers.subscribe = ({ since }, say) => since && (say({ type: "error", code: "cursor_expired", message: "of another life" }), true);
  await node.end(3000, "draining");
  await until("it subscribes without a cursor", () => node.asked("subscribe").length === 3);
  same(node.asked("subscribe").map(({ since }) => since), [undefined, "c0", undefined], "the cursors");
  await until("it says so", () => said.some((line) => line.startsWith("warning") && line.includes("missing")));
  node.tell(node.store("pump-1", "6"));
  await until("it has the reading", () => said.some((line) => line.includes("pump-1 level 6")));
};

scenarios["the documented client comes back when the node asks it to, and from a connection that is silent"] = async (page, node) => {
  await page.clock.install();
  await sample(page);
  await until("it subscribes", () => node.asked("subscribe").length === 1);
  node.say({ type: "closing", code: 3000, reason: "draining", reconnect_after_ms: 9000 });
  await node.end(3000, "draining");
  await page.clock.runFor(8000);
  same(node.connections.length, 1, "connections before it is time");
  await page.clock.runFor(2000);
  await until("it is back", () => node.asked("subscribe").length === 2);
  await page.clock.runFor(60000);
  await until("it gives up what is silent", () => node.asked("subscribe").length === 3);
};

scenarios["after a restore a page that stayed open shows the new readings, and none of the old"] = async (page, node) => {
  for (let n = 0; n < 5; n++) node.store("pump-1", String(n), 100000 + n);
  await open(page, "?device=pump-1");
  await page.locator('[data-testid=reading][data-offset="100004"]').waitFor();
  node.readings.clear();
  node.store("pump-1", "70", 90000);
  await node.end(3500, "token_refused");
  await page.getByTestId("gate").waitFor();
  await page.getByTestId("token").fill("another");
  await page.keyboard.press("Enter");
  await live(page);
  same(node.asked("subscribe")[1].since, undefined, "the place it goes on from");
  node.tell(node.store("pump-1", "71"));
  await page.locator('[data-testid=reading][data-offset="90001"]').waitFor();
  same(await listed(page, "pump-1"), "71", "what the list says");
  same(await page.getByTestId("tile-value").textContent(), "71", "what the tile says");
  same(await page.locator('[data-testid=reading][data-offset="100004"]').count(), 0, "readings of before");
};

scenarios["a page whose cursor is of another life of the log forgets what it held"] = async (page, node) => {
  for (let n = 0; n < 5; n++) node.store("pump-1", String(n), 100000 + n);
  await open(page, "?device=pump-1");
  await page.locator('[data-testid=reading][data-offset="100004"]').waitFor();
  node.readings.clear();
  node.store("pump-1", "70", 100002);
  node.answers.subscribe = ({ id, since }, say) => since && (say({ type: "error", id, code: "cursor_expired", message: "of another life" }), true);
  await node.end(3000, "draining");
  const again = page.locator('[data-testid=reading][data-offset="100002"] [data-testid=reading-value]');
  await until("the place holds another reading", async () => (await again.textContent()) === "70");
  same(await listed(page, "pump-1"), "70", "what the list says");
  same(await page.locator('[data-testid=reading][data-offset="100004"]').count(), 0, "readings of before");
  await page.getByTestId("notice").filter({ hasText: "anew" }).waitFor();
};

scenarios["a command whose answer was lost over a reload is found again, and not sent twice"] = async (page, node) => {
  await open(page, "?device=pump-1");
  node.answers.send = (frame) => node.commands.set(frame.command, command(frame));
  await send(page, "reboot", "now");
  await until("it is sent", () => node.asked("send").length === 1);
  await page.reload();
  await page.locator("[data-testid=command][data-name=reboot]").waitFor();
  same(node.asked("command")[0]?.command, node.asked("send")[0].command, "what it asks for");
  await live(page);
  same(node.asked("send").length, 1, "how often it was sent");
};

scenarios["a command that was never taken goes under the same id after a reload"] = async (page, node) => {
  await open(page, "?device=pump-1");
  node.answers.send = () => true;
  await send(page, "reboot", "now");
  await until("it is sent", () => node.asked("send").length === 1);
  await page.reload();
  await live(page);
  delete node.answers.send;
  await send(page, "reboot", "now");
  await page.locator("[data-testid=command][data-name=reboot]").waitFor();
  const [first, second] = node.asked("send");
  same(second.command, first.command, "the second id");
};

scenarios["a command that was taken though its answer was lost is shown; the next of the same text is another"] = async (page, node) => {
  await open(page, "?device=pump-1");
  node.answers.send = (frame) => node.commands.set(frame.command, command(frame));
  await send(page, "reboot", "now");
  await until("it is sent", () => node.asked("send").length === 1);
  await node.end(3000, "draining");
  await page.locator("[data-testid=command][data-name=reboot]").waitFor();
  delete node.answers.send;
  await send(page, "reboot", "now");
  await until("there are two", async () => (await page.locator("[data-testid=command]").count()) === 2);
  const [first, second] = node.asked("send");
  same(second.command === first.command, false, "both have one id");
};

scenarios["a command that the store may have taken is looked for before it is sent again"] = async (page, node) => {
  await open(page, "?device=pump-1");
  node.answers.send = (frame, say) => {
    node.commands.set(frame.command, command(frame));
    say({ type: "error", id: frame.id, code: "unavailable", message: "the store does not serve now" });
    return true;
  };
  await send(page, "reboot", "now");
  await until("it says why", async () => (await page.locator("#command-hint").textContent()).includes("store"));
  delete node.answers.send;
  await send(page, "reboot", "now");
  await page.locator("[data-testid=command][data-name=reboot]").waitFor();
  same(node.asked("send").length, 1, "how often it was sent");
  await until("it says so", async () => (await page.locator("#command-hint").textContent()).includes("was taken before"));
  await send(page, "reboot", "now");
  await until("there are two", async () => (await page.locator("[data-testid=command]").count()) === 2);
};

scenarios["the answer to one command says nothing of another that is unanswered"] = async (page, node) => {
  await open(page, "?device=pump-1");
  node.answers.send = () => true;
  await send(page, "reboot", "A");
  await until("it is sent", () => node.asked("send").length === 1);
  await node.end(3000, "draining");
  await live(page);
  delete node.answers.send;
  await send(page, "reboot", "B");
  await page.locator("[data-testid=command][data-name=reboot]").waitFor();
  await send(page, "reboot", "A");
  await until("all are sent", () => node.asked("send").length === 3);
  const ids = node.asked("send").map(({ command }) => command);
  same([ids[2] === ids[0], ids[1] === ids[0]], [true, false], "the ids");
};

scenarios["a command of this page stays in sight among those of others"] = async (page, node) => {
  await open(page, "?device=pump-1");
  await send(page, "reboot", "now");
  await page.locator("[data-testid=command][data-name=reboot]").waitFor();
  const [taken] = [...node.commands.values()];
  node.say({ type: "command_changed", command: { ...taken, state: "failed", times: { ...taken.times, failed: taken.created_at } } });
  for (let n = 0; n < 50; n++) {
    const id = n.toString(16).padStart(32, "0");
    const other = command({ command: id, device: "pump-1", name: `other-${n}` });
    node.say({ type: "command_changed", command: n % 2 ? { ...other, state: "done" } : other });
  }
  await page.locator("[data-testid=command][data-name=other-48]").waitFor();
  same(await page.locator("[data-testid=command][data-name=reboot]").count(), 1, "how often it is listed");
  same(await page.locator("[data-testid=command]").count(), 20, "how many are listed");
  // Those of another device take no places of this one's.
  for (let n = 0; n < 300; n++) {
    node.say({ type: "command_changed", command: command({ command: `f${n.toString(16).padStart(31, "0")}`, device: n % 2 ? "pump-2" : `pump-${n}`, name: "else" }) });
  }
  await page.locator('[data-testid=device][data-device="pump-2"]').click();
  await until("pump-2 has its own", async () => (await page.locator("[data-testid=command][data-name=else]").count()) > 0);
  await page.locator('[data-testid=device][data-device="pump-1"]').click();
  same(await page.locator("[data-testid=command][data-name=reboot]").count(), 1, "how often it is listed then");
};

scenarios["where it is not known whether a command was taken, the page says so and how to go on"] = async (page, node) => {
  const hint = page.locator("#command-hint");
  await open(page, "?device=pump-1");
  node.answers.send = () => true;
  await send(page, "reboot", "now");
  await until("it is sent", () => node.asked("send").length === 1);
  await node.end(3000, "draining");
  await hint.filter({ hasText: "not known whether reboot was taken" }).filter({ hasText: "unchanged" }).waitFor();
  await live(page);
  node.answers.send = ({ id }, say) => (say({ type: "error", id, code: "too_many_open", message: "32 are open" }), true);
  await send(page, "reboot", "other");
  await hint.filter({ hasText: "reboot was not sent: 32 are open" }).waitFor();
  delete node.answers.send;
  await send(page, "reboot", "x".repeat(140000));
  await hint.filter({ hasText: "reboot was not sent: It is too long" }).waitFor();
  same(node.asked("send").length, 2, "how often it was sent");
  same(node.connections.length, 2, "connections");
};

scenarios["of a command that is open the page claims no end of its own"] = async (page, node) => {
  await page.clock.install();
  await open(page, "?device=pump-1");
  await send(page, "reboot", "now");
  const shown = page.locator("[data-testid=command][data-name=reboot]");
  await shown.waitFor();
  node.answers.authenticate = () => true;
  await node.end(3000, "draining");
  await page.clock.fastForward(700000);
  await shown.filter({ hasText: "when the connection was lost" }).waitFor();
  same(await shown.getAttribute("data-state"), "accepted", "its state");
  const [taken] = [...node.commands.values()];
  node.commands.set(taken.command, { ...taken, state: "done", times: { ...taken.times, done: taken.created_at } });
  delete node.answers.authenticate;
  await node.end(3004, "authentication_timeout");
  await page.clock.fastForward(20000);
  await until("it is done", async () => (await shown.getAttribute("data-state")) === "done");
};

scenarios["what the store did not give is asked for again; a device that cannot be read holds up no other"] = async (page, node) => {
  await page.clock.install();
  node.store("pump-1", "1");
  node.store("pump-2", "2");
  const refuse = ({ id }, say) => (say({ type: "error", id, code: "unavailable", message: "the store does not serve now" }), true);
  node.answers.history = (frame, say) => frame.device === "pump-1" && refuse(frame, say);
  node.answers.commands = refuse;
  await open(page, "?device=pump-1");
  await until("pump-2 is at 2", async () => (await listed(page, "pump-2")) === "2");
  await page.getByTestId("notice").filter({ hasText: "does not serve" }).waitFor();
  delete node.answers.history;
  delete node.answers.commands;
  await page.clock.fastForward(6000);
  await until("pump-1 is at 1", async () => (await listed(page, "pump-1")) === "1");
};

scenarios["a store that does not read is not asked until the node ends the connection"] = async (page, node) => {
  node.devices = Array.from({ length: 60 }, (_, n) => `pump-${n}`);
  let refused = 0;
  node.answers.history = ({ id }, say) => (refused++, say({ type: "error", id, code: "unavailable", message: "the store does not serve now" }), true);
  await open(page);
  await page.getByTestId("notice").filter({ hasText: "does not serve" }).waitFor();
  same(refused, 8, "refusals");
};

scenarios["a live reading stays though nobody asks what its device said before"] = async (page, node) => {
  await page.clock.install();
  node.devices = Array.from({ length: 80 }, (_, n) => `pump-${String(n).padStart(2, "0")}`);
  await open(page, "?device=pump-00");
  for (const device of node.devices) node.tell(node.store(device, "1"));
  await until("all are at 1", async () => (await listed(page, "pump-79")) === "1");
  node.answers.authenticate = () => true;
  await node.end(3000, "draining");
  await page.clock.fastForward(700000);
  // One reading comes in the midst of the histories.
  node.answers.history = ({ device }) => {
    if (device === "pump-30") node.tell(node.store("pump-79", "2"));
    return false;
  };
  delete node.answers.authenticate;
  await node.end(3004, "authentication_timeout");
  await page.clock.fastForward(20000);
  await until("pump-78 says nothing old", async () => (await listed(page, "pump-78")) === "");
  same(await listed(page, "pump-79"), "2", "what the list says");
};

scenarios["rows of two absences never seem to join"] = async (page, node) => {
  await page.clock.install();
  for (let n = 0; n < 3; n++) node.store("pump-1", String(n), 98 + n);
  await open(page, "?device=pump-1");
  await page.locator("[data-testid=reading][data-offset='100']").waitFor();
  const away = async () => {
    node.answers.authenticate = () => true;
    await node.end(3000, "draining");
    await page.clock.fastForward(700000);
    delete node.answers.authenticate;
    await node.end(3004, "authentication_timeout");
    await page.clock.fastForward(20000);
    await live(page);
  };
  node.answers.history = () => true; // it is never answered
  node.store("pump-1", "missed", 4000);
  await away();
  node.tell(node.store("pump-1", "5", 5000));
  await page.locator("[data-testid=reading][data-offset='5000']").waitFor();
  node.answers.history = ({ id, device }, say) => (say({ type: "history", id, device, more: true, readings: (node.readings.get(device) ?? []).slice(-1) }), true);
  for (const at of [8000, 9000]) node.store("pump-1", "missed", at);
  await away();
  await page.locator("[data-testid=reading][data-offset='9000']").waitFor();
  const rows = await page.locator("#readings tr").evaluateAll((rows) => rows.map(({ dataset }) => [dataset.testid, dataset.offset].join(" ")));
  same(rows, ["reading 9000", "gap 8000", "reading 5000"], "the rows");
};

scenarios["what is said late of a command takes nothing back"] = async (page, node) => {
  await open(page, "?device=pump-1");
  await send(page, "reboot", "now");
  const shown = page.locator("[data-testid=command][data-name=reboot]");
  await shown.waitFor();
  const [taken] = [...node.commands.values()];
  const at = taken.created_at;
  const told = (state, times, attempts = 1) => node.say({ type: "command_changed", command: { ...taken, state, times: { accepted: at, ...times }, attempts } });
  const mark = async (name) => {
    node.say({ type: "command_changed", command: command({ command: name.padStart(32, "0"), device: "pump-1", name }) });
    await page.locator(`[data-testid=command][data-name=${name}]`).waitFor();
  };
  told("delivered", { sent: at, delivered: at });
  told("sent", { sent: at });
  await mark("one");
  same(await shown.getAttribute("data-state"), "delivered", "after an older word");
  told("done", { sent: at, delivered: at, done: at });
  told("delivered", { sent: at, delivered: at, acting: at, more: at });
  await mark("two");
  same(await shown.getAttribute("data-state"), "done", "after a word from before the end");
};

scenarios["a node that lets in and does not serve is asked ever less often"] = async (page, node) => {
  await page.addInitScript(() => (Math.random = () => 1));
  node.answers.subscribe = ({ id, device }, say, socket) => {
    say({ type: "subscribed", id, device, cursor: "c0" });
    socket.close({ code: 3003, reason: "unavailable" });
    return true;
  };
  await page.goto(`${ORIGIN}/#token=once`);
  await until("it comes back", () => node.connections.length === 2);
  await new Promise((done) => setTimeout(done, 3000));
  if (node.connections.length > 4) throw new Error(`${node.connections.length} connections in 3 s`);
  delete node.answers.subscribe;
  await live(page);
  await node.end(3000, "draining");
  const at = Date.now();
  const served = node.connections.length;
  await until("it comes back", () => node.connections.length > served);
  if (Date.now() - at > 2900) throw new Error(`it came back to one that had served after ${Date.now() - at} ms`);
};

for (const code of [1002, 1007, 1009]) {
  scenarios[`a connection that ended with ${code} is final`] = async (page, node) => {
    await open(page);
    await node.end(code);
    await page.getByTestId("notice").filter({ hasText: "Reload" }).waitFor();
    await new Promise((done) => setTimeout(done, 1500));
    same(node.connections.length, 1, "connections");
  };
}

scenarios["the address of the node, pasted into a tab that waits for a token, lets it in"] = async (page, node) => {
  await page.goto(`${ORIGIN}/`);
  await page.getByTestId("gate").waitFor();
  await page.evaluate(() => (location.hash = "#token=pasted"));
  await live(page);
  same(node.exchanged, ["pasted"], "the tokens it spent");
  same(page.url(), `${ORIGIN}/`, "the address");
};

scenarios["a new address pasted into a page that is live begins a new session; a spent one changes nothing"] = async (page, node) => {
  node.store("pump-1", "5");
  await open(page);
  node.devices = ["pump-1"];
  await page.evaluate(() => (location.hash = "#token=second"));
  await until("pump-2 is gone", async () => (await page.getByTestId("device").count()) === 1);
  await live(page);
  same(node.asked("authenticate").map(({ token }) => token), ["session-1", "session-2"], "the tokens it came in by");
  node.sessions = [{ status: 401, json: { code: "token_refused", message: "the token is unknown" } }];
  await page.evaluate(() => (location.hash = "#token=second"));
  await until("it comes back", () => node.asked("authenticate").length === 3);
  await live(page);
  same(node.asked("authenticate")[2].token, "session-2", "the token it comes back by");
  same(page.url(), `${ORIGIN}/`, "the address");
  // The link that skips to the readings is no token.
  await page.evaluate(() => (location.hash = "#main"));
  await new Promise((done) => setTimeout(done, 200));
  same(node.connections.length, 3, "connections");
};

scenarios["a token is kept where the node could not say whether it is good"] = async (page, node) => {
  node.sessions = [{ status: 503, contentType: "text/html", body: "<h1>busy</h1>" }, { status: 408, json: { code: "too_slow", message: "the body did not come in time" } }];
  await open(page);
  same(node.exchanged, ["once", "once", "once"], "the tokens it spent");
};

scenarios["a token that is refused is asked for again"] = async (page, node) => {
  node.sessions = [{ status: 401, json: { code: "token_refused", message: "the token is unknown" } }];
  await page.goto(`${ORIGIN}/#token=once`);
  await page.getByTestId("gate").waitFor();
  await page.getByTestId("notice").filter({ hasText: "unknown" }).waitFor();
  same(node.exchanged, ["once"], "the tokens it spent");
};

scenarios["a refusal that no other try can change is said, and not tried for ever"] = async (page, node) => {
  node.sessions = [{ status: 403, json: { code: "foreign_origin", message: "pages of this origin may not connect" } }];
  await page.goto(`${ORIGIN}/#token=once`);
  await page.getByTestId("gate").waitFor();
  await page.getByTestId("notice").filter({ hasText: "origin" }).waitFor();
  same(node.exchanged, ["once"], "the tokens it spent");
};

scenarios["readings that are gone leave a row that says so"] = async (page, node) => {
  node.store("pump-1", "1", 5);
  node.answers.history = ({ id, device }, say) => {
    const gaps = device === "pump-1" ? [{ device, partition: 0, offset: 4 }] : undefined;
    say({ type: "history", id, device, more: false, readings: node.readings.get(device) ?? [], gaps });
    return true;
  };
  await open(page, "?device=pump-1");
  await page.locator("[data-testid=gap][data-offset='4']").filter({ hasText: "missing" }).waitFor();
  const next = node.store("pump-1", "2", 20);
  node.say({ type: "readings", device: "*", cursor: "c20", gaps: [{ device: "pump-1", partition: 0, offset: 19 }, { device: "pump-2", partition: 0, offset: 12 }], readings: [next] });
  await page.locator("[data-testid=gap][data-offset='19']").waitFor();
  await page.getByTestId("notice").filter({ hasText: "pump-1 and of 1 more" }).waitFor();
  const places = await page.locator("#readings tr").evaluateAll((rows) => rows.map(({ dataset }) => [dataset.testid, dataset.offset].join(" ")));
  same(places, ["reading 20", "gap 19", "reading 5", "gap 4"], "the rows");
};

scenarios["history that does not reach what is shown leaves a row between them"] = async (page, node) => {
  await page.clock.install();
  for (let n = 0; n < 3; n++) node.store("pump-1", String(n));
  await open(page, "?device=pump-1");
  await page.locator("[data-testid=reading][data-offset='3']").waitFor();
  node.answers.authenticate = () => true;
  await node.end(3000, "draining");
  await page.clock.fastForward(700000);
  for (let n = 0; n < 500; n++) node.store("pump-1", String(n));
  node.answers.history = ({ id, device }, say) => (say({ type: "history", id, device, more: true, readings: (node.readings.get(device) ?? []).slice(-10) }), true);
  delete node.answers.authenticate;
  await node.end(3004, "authentication_timeout");
  await page.clock.fastForward(20000);
  await page.locator("[data-testid=reading][data-offset='503']").waitFor();
  const rows = await page.locator("#readings tr").evaluateAll((rows) => rows.map(({ dataset }) => dataset.testid));
  same(rows, [...Array(10).fill("reading"), "gap", ...Array(3).fill("reading")], "the rows");
};

scenarios["a device that invents names has no more series than may be, and the page lives"] = async (page, node) => {
  await open(page, "?device=pump-1");
  for (let n = 0; n < 5; n++) {
    const some = Array.from({ length: 100 }, (_, k) => ({ ...node.store("pump-1", String(k)), name: `name-${n}-${k}` }));
    node.tell(...some);
  }
  await page.locator("[data-testid=tile][data-series='name-4-99']").waitFor();
  same(await page.getByTestId("tile").count(), 64, "how many are shown");
};

scenarios["what is shown rounded has its exact text at hand, and a number beyond all is text"] = async (page, node) => {
  await open(page, "?device=pump-1");
  node.tell(node.store("pump-1", "12345678901234567890"));
  const value = (at) => page.locator(`[data-testid=reading][data-offset="${at}"] [data-testid=reading-value]`);
  await value(1).waitFor();
  same(await value(1).getAttribute("title"), "12345678901234567890", "the whole number");
  same(await page.getByTestId("tile-value").getAttribute("title"), "12345678901234567890", "the tile");
  node.tell(node.store("pump-1", '{"v": 12345678.5, "unit": "<b>l</b>", "n": 9007199254740993}'));
  await value(2).waitFor();
  same(await value(2).getAttribute("title"), '{"v": 12345678.5, "unit": "<b>l</b>", "n": 9007199254740993}', "the measurement");
  same(await page.locator("b").count(), 0, "elements made of what a device says");
  node.tell(node.store("pump-1", "1e999"));
  await value(3).waitFor();
  same(await value(3).textContent(), "1e999", "a number beyond all");
};

scenarios["a chart takes more values than a call has arguments"] = async (page, node) => {
  await open(page, "?device=pump-1");
  const drawn = await page.evaluate(async () => {
    const { Chart } = await import("/console/chart.js");
    const canvas = document.createElement("canvas");
    canvas.style.cssText = "width: 400px; height: 300px";
    document.body.append(canvas);
    const chart = new Chart(canvas);
    chart.restyle();
    const at = Date.now();
    const points = Array.from({ length: 300000 }, (_, n) => ({ t: at - 300 + n / 1000, v: n % 7 }));
    chart.show([{ name: "many", unit: "", colour: 0, points }], 60000, () => at);
    return canvas.width > 0;
  });
  same(drawn, true, "drawn");
};

scenarios["all points together are bounded, and those of the device that is shown go last"] = async (page, node) => {
  node.devices = Array.from({ length: 9 }, (_, n) => `pump-${n}`);
  await open(page, "?device=pump-0");
  const { kept, own } = await page.evaluate(async () => {
    const { devices, take } = await import("/console/held.js");
    let offset = 0;
    // The device that is shown first: all others come after it.
    for (let n = 0; n < 9; n++) {
      for (let k = 0; k < 64 * 800; k++) take({ device: `pump-${n}`, offset: ++offset, kind: "reading", name: `name-${k % 64}`, received_at: offset, text: "1" });
    }
    const points = ({ series }) => [...series.values()].reduce((sum, { points }) => sum + points.length, 0);
    return { kept: [...devices.values()].reduce((sum, device) => sum + points(device), 0), own: points(devices.get("pump-0")) };
  });
  same([kept <= 400000, kept > 100000, own], [true, true, 64 * 800], `what is kept, ${kept}`);
};

scenarios["one device that says much for long does not thin the others"] = async (page, node) => {
  await open(page, "?device=pump-1");
  const kept = await page.evaluate(async () => {
    const { devices, take } = await import("/console/held.js");
    let offset = 0;
    const say = (device, name) => take({ device, offset: ++offset, kind: "reading", name, received_at: offset, text: "1" });
    for (let n = 0; n < 250000; n++) say(`pump-${10 + (n % 5)}`, `name-${n % 64}`);
    for (let n = 0; n < 200000; n++) say("pump-1", "level");
    return [...devices.values()].reduce((sum, { id, series }) => (id === "pump-1" ? sum : sum + [...series.values()].reduce((sum, { points }) => sum + points.length, 0)), 0);
  });
  same(kept, 250000, "what is kept of others");
};

const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
  args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"],
});
let failed = 0;
const waiting = Object.entries(scenarios).filter(([name]) => name.includes(only));
if (!waiting.length) {
  console.log(`FAILED: no scenario has "${only}" in its name`);
  failed++;
}
// They wait more than they compute.
await Promise.all(Array.from({ length: AT_ONCE }, async () => {
  for (let next; (next = waiting.shift()); ) await run(...next);
}));
await browser.close();
process.exit(failed ? 1 : 0);

async function run(name, play) {
  const context = await browser.newContext({ viewport: { width: 1360, height: 900 } });
  const page = await context.newPage();
  page.setDefaultTimeout(PATIENCE_MS);
  const faults = [];
  page.on("pageerror", (error) => faults.push(error.message));
  try {
    const node = new Node(page, folder);
    await node.serve();
    await play(page, node);
    if (faults.length) throw new Error(`the page complains: ${faults.join("; ")}`);
    console.log(`ok ${name}`);
  } catch (error) {
    failed++;
    console.log(`FAILED ${name}: ${error.message}`);
  }
  await context.close();
}

// ---- what scenarios have in common

async function open(page, query = "") {
  await page.goto(`${ORIGIN}/${query}#token=once`);
  await live(page);
}

async function live(page) {
  await page.locator("[data-testid=connection][data-state=live]").waitFor();
}

async function until(what, held) {
  const end = Date.now() + PATIENCE_MS;
  while (!(await held())) {
    if (Date.now() > end) throw new Error(`it never came that ${what}`);
    await new Promise((done) => setTimeout(done, 20));
  }
}

function same(found, wanted, what) {
  const [a, b] = [JSON.stringify(found), JSON.stringify(wanted)];
  if (a !== b) throw new Error(`${what}: ${a}, wanted ${b}`);
}

async function send(page, name, body) {
  await page.getByTestId("command-name").fill(name);
  await page.getByTestId("command-body").fill(body);
  await page.locator("[data-testid=command-send]:enabled").click();
}

// What the list says a device has said last.
function listed(page, device) {
  return page.locator(`[data-testid=device][data-device="${device}"] .value`).textContent();
}
