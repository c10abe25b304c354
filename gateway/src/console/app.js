// The console: what the node says, kept for a while, and shown.

import { interpret } from "./body.js";
import { Chart, thin } from "./chart.js";
import { Link } from "./link.js";

const POINTS_MAX = 4000; // of one series
const POINTS_ALL_MAX = 400000; // of all series together
const SERIES_MAX = 64; // of one device: one that invents names does not fill the page
const ROWS_MAX = 60; // in the table, of one device
const HISTORY = 400; // readings asked for when a device is shown
const GLIMPSE = 6; // readings asked for of a device that is only listed
const GLIMPSES_MAX = 64; // devices for which that is done
const SEEN_MAX = 4096; // places remembered, so that history and live do not show a row twice
const COMMANDS_MAX = 20;
const UNANSWERED_MAX = 8; // commands of which it is not known whether the node has taken them
const RATE_MS = 5000; // over which the rate is taken
const AWAY_MS = 600000; // after which a page asks for history and does not replay all it missed
const FIRST = ["temperature", "humidity"]; // shown first where a device measures them
const LATEST_COMMANDS = "unhidra.commands";
const UNANSWERED = "unhidra.unanswered";
const STEPS = ["accepted", "sent", "delivered"];

const $ = (id) => document.getElementById(id);
const devices = new Map();
const commands = new Map();
let selected = new URLSearchParams(location.search).get("device");
let windowMs = 60000;
let welcome = null;
let behind = new Set();
let heardAt = 0;
let skew = 0;
let dirty = true;
let pointsHeld = 0; // at most so many: those of series that went are counted until it is looked at

const cursors = new Map();
// What this tab showed before it was reloaded or began a new session, and has not asked for since.
let toAsk = stored(LATEST_COMMANDS);
// The ids of what was sent from this tab.
const own = new Set(toAsk.filter(({ own }) => own).map(({ command }) => command));
// What was sent and not answered: { command, device, name, text }. Kept before it is sent, so that it outlives a reload.
let unanswered = stored(UNANSWERED);
let sending = false;

const chart = new Chart($("chart"));
const link = new Link({ open: opened, frame: heard, state: linkState, refused, entered: forget });

// ---- the connection

function linkState(state, retryMs) {
  const text = { connecting: "Connecting", "catching-up": "Catching up", live: "Live", offline: "Not connected" }[state];
  $("link").dataset.state = state;
  $("link-text").textContent = state === "offline" && retryMs > 1500 ? `${text}, again in ${Math.round(retryMs / 1000)} s` : text;
  if (state !== "live" && state !== "catching-up") welcome = null;
  document.body.dataset.link = welcome ? "up" : "down";
  dirty = true;
}

function refused(why) {
  forget();
  linkState("offline");
  notice(why);
  $("gate").hidden = false;
  $("main").hidden = true;
  $("token").focus();
}

async function opened(frame) {
  welcome = frame;
  skew = frame.server_time - Date.now();
  notice(null);
  $("gate").hidden = true;
  $("main").hidden = false;
  linkState("catching-up");
  if (Date.now() - heardAt > AWAY_MS) cursors.clear();
  const audiences = frame.devices === "*" ? ["*"] : frame.devices.slice(0, frame.subscriptions_max);
  behind = new Set(audiences);
  try {
    for (const audience of audiences) await subscribe(audience);
    await list();
    await recall();
  } catch (error) {
    if (welcome === frame) notice(error.message);
  }
}

// Goes on where this page was. A page that was reloaded begins with now, and asks for history.
async function subscribe(audience) {
  const since = cursors.get(audience);
  if (since) {
    try {
      await link.ask({ type: "subscribe", device: audience, since });
      return;
    } catch (error) {
      if (error.code !== "cursor_expired" && error.code !== "cursor_invalid") throw error;
      forget();
      notice("The node's log has begun anew since this page last saw it. Readings may be missing.");
    }
  }
  for (const device of devices.values()) if (audience === "*" || audience === device.id) leave(device);
  const { cursor } = await link.ask({ type: "subscribe", device: audience });
  // A connection that is lost before the first reading goes on from here too.
  cursors.set(audience, cursor);
}

async function list() {
  let after;
  let glimpses = 0;
  for (;;) {
    const page = await link.ask(after ? { type: "devices", after } : { type: "devices" });
    for (const entry of page.devices) Object.assign(deviceOf(entry.device), { enrolled: true, tags: entry.tags, online: entry.online, since: entry.since, revoked: entry.revoked_at });
    after = page.devices.at(-1)?.device;
    dirty = true;
    if (!page.more || !after) break;
  }
  if (!selected || !devices.has(selected)) selected = firstDevice();
  if (selected) await look(selected);
  // First those that show what was true before the page was away.
  const unknown = [...devices.values()].filter(({ stale, rows }) => stale || !rows.length);
  unknown.sort((a, b) => Number(b.stale) - Number(a.stale) || a.id.localeCompare(b.id));
  for (const device of unknown) {
    if (glimpses++ < GLIMPSES_MAX) await remember(device.id, GLIMPSE);
    else if (device.stale) forgetReadings(device);
  }
}

async function look(id) {
  await remember(id, HISTORY);
  const { commands: open } = await link.ask({ type: "commands", device: id });
  open.forEach(follow);
}

async function remember(device, newest) {
  const { readings, gaps, more } = await link.ask({ type: "history", device, newest });
  rejoin(deviceOf(device), readings[0], more);
  gaps?.forEach(lack);
  readings.forEach(take);
}

function heard(frame) {
  heardAt = Date.now();
  switch (frame.type) {
    case "readings":
      cursors.set(frame.device, frame.cursor);
      if (frame.gaps?.length) missing(frame.gaps);
      frame.readings.forEach(take);
      break;
    case "caught_up":
      behind.delete(frame.device);
      if (!behind.size) linkState("live");
      break;
    case "presence":
      for (const { device, online, since } of frame.devices) Object.assign(deviceOf(device), { online, since });
      dirty = true;
      break;
    case "presence_stale":
      list().catch((error) => notice(error.message));
      break;
    case "command_changed":
      follow(frame.command);
      break;
    case "error":
      notice(frame.message);
      break;
  }
}

// ---- what is kept

function deviceOf(id) {
  let device = devices.get(id);
  if (!device) {
    device = { id, tags: [], online: false, since: null, heardAt: 0, series: new Map(), rows: [], seen: new Set(), arrivals: [], stale: false, heldTo: 0 };
    devices.set(id, device);
    selected ??= id;
  }
  return device;
}

// The next session may be with a node that was restored: its places begin lower than those held here, and what it says
// would pass for seen. Commands are asked for anew.
function forget() {
  devices.clear();
  cursors.clear();
  toAsk = latest();
  commands.clear();
  // A row is made once, and known by its place: another reading may have that now.
  $("readings").replaceChildren();
  dirty = true;
}

// Nothing is better than an old value that passes for the newest.
function forgetReadings(device) {
  Object.assign(device, { series: new Map(), rows: [], seen: new Set(), arrivals: [], stale: false, heldTo: 0 });
}

// What comes next may not join what is held: `heldTo` is where that ends.
function leave(device) {
  device.stale = true;
  device.heldTo = device.rows[0]?.offset ?? 0;
  for (const row of device.rows) row.unlisted = false;
}

// Marks what lies between the rows held and the history from `first` on, until a longer one fills it.
function rejoin(device, first, more) {
  device.stale = false;
  if (!device.heldTo || !first) return;
  device.rows = device.rows.filter(({ unlisted }) => !unlisted);
  if (more && first.prev > device.heldTo) lack({ device: device.id, offset: first.prev, unlisted: true });
  else device.heldTo = 0;
}

// A row where readings are not, the last of them at `offset`.
function lack({ device: id, offset, unlisted = false }) {
  const device = deviceOf(id);
  if (device.rows.some((row) => row.kind === "gap" && row.offset === offset)) return;
  insert(device.rows, { kind: "gap", offset, unlisted }, (row) => -row.offset);
  device.rows.length = Math.min(device.rows.length, ROWS_MAX);
  dirty = true;
}

function missing(gaps) {
  gaps.forEach(lack);
  const [first, ...more] = new Set(gaps.map(({ device }) => device));
  notice(`Readings of ${first}${more.length ? ` and of ${more.length} more` : ""} are missing: the node has them no more.`);
}

function take(reading) {
  const device = deviceOf(reading.device);
  if (reading.kind === "ignored" || device.seen.has(reading.offset)) return;
  device.seen.add(reading.offset);
  if (device.seen.size > SEEN_MAX) device.seen.delete(device.seen.values().next().value);
  const body = interpret(reading);
  device.heardAt = Math.max(device.heardAt, reading.received_at);
  // Without the body as it came, which may be long.
  const { text, base64, ...rest } = reading;
  insert(device.rows, { ...rest, body }, (row) => -row.offset);
  device.rows.length = Math.min(device.rows.length, ROWS_MAX);
  if (reading.kind === "reading") {
    const since = now() - RATE_MS;
    if (reading.received_at > since) device.arrivals = [...device.arrivals.filter((at) => at > since), reading.received_at];
    if (body.value !== null) measure(device, reading, body);
  }
  dirty = true;
}

function measure(device, reading, body) {
  const name = reading.name || "value";
  let series = device.series.get(name);
  if (!series) {
    series = { name, unit: body.unit, colour: 0, points: [], offset: 0 };
    device.series = new Map([...device.series, [name, series]].sort(([a], [b]) => rank(a) - rank(b) || a.localeCompare(b)));
    [...device.series.values()].forEach((series, at) => (series.colour = at % 6));
  }
  if (reading.offset > series.offset) Object.assign(series, { offset: reading.offset, latest: body });
  insert(series.points, { t: reading.received_at, v: body.value }, (point) => point.t);
  if (series.points.length > POINTS_MAX) series.points.splice(0, POINTS_MAX / 4);
  if (device.series.size > SERIES_MAX) {
    const oldest = [...device.series.values()].reduce((oldest, series) => (series.offset < oldest.offset ? series : oldest));
    device.series.delete(oldest.name);
  }
  if (++pointsHeld > POINTS_ALL_MAX) pointsHeld = thin(devices.values(), devices.get(selected), POINTS_ALL_MAX / 2);
}

const rank = (name) => (FIRST.includes(name) ? FIRST.indexOf(name) : FIRST.length);

// Keeps `list` in the order of `key`. What is live belongs at an end, so that is looked at first.
function insert(list, item, key) {
  const at = key(item);
  if (!list.length || key(list.at(-1)) <= at) return list.push(item);
  let low = 0;
  let high = list.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (key(list[middle]) <= at) low = middle + 1;
    else high = middle;
  }
  list.splice(low, 0, item);
}

function firstDevice() {
  const all = [...devices.values()].sort((a, b) => Number(b.online) - Number(a.online) || a.id.localeCompare(b.id));
  return all[0]?.id ?? null;
}

// ---- commands

function follow(command) {
  const { command: id, name, state } = command;
  const known = commands.get(id);
  if (known && older(command, known)) return;
  commands.set(id, command);
  if (commands.size > COMMANDS_MAX) commands.delete(leastWanted());
  toAsk = toAsk.filter(({ command }) => command !== id);
  if (known && known.state !== state) say(`${name}: ${state}`);
  keep(LATEST_COMMANDS, latest());
  dirty = true;
}

const over = ({ state }) => !STEPS.includes(state);

// Whether `told` was true before `known`: an answer is read from the store, and may cross what is told of a change.
function older(told, known) {
  if (over(told) !== over(known)) return over(known);
  const passed = ({ times, attempts, late }) => [Object.keys(times ?? {}).length, attempts ?? 0, late?.count ?? 0];
  const held = passed(known);
  return passed(told).some((count, at) => count < held[at]);
}

// What goes for a new one: what is over before what is open, and of each what others have sent before what was sent here.
function leastWanted() {
  const rank = (command) => (over(command) ? 0 : 2) + (own.has(command.command) ? 1 : 0);
  return [...commands.values()].sort((a, b) => rank(a) - rank(b) || a.created_at - b.created_at)[0].command;
}

function latest() {
  const all = [...toAsk, ...commands.values()].map(({ command, device }) => ({ command, device, own: own.has(command) }));
  return all.slice(-2 * COMMANDS_MAX);
}

// Asks what became of commands while nobody here was told.
async function recall() {
  for (const lost of [...unanswered]) {
    try {
      if (await taken(lost)) hint(`${lost.name} was taken, though its answer was lost.`);
    } catch (error) {
      if (!error.code) throw error;
    }
  }
  for (const { command, device } of [...toAsk, ...[...commands.values()].filter((command) => !over(command))]) {
    try {
      follow((await link.ask({ type: "command", device, command })).command);
    } catch (error) {
      if (!error.code) throw error;
      if (error.code !== "unavailable") toAsk = toAsk.filter((asked) => asked.command !== command);
    }
  }
}

// Whether the node has a command whose answer was lost. From then on the same text is another command.
async function taken(lost) {
  try {
    const answer = await link.ask({ type: "command", device: lost.device, command: lost.command });
    // Its answer may have come after all, before this one.
    const unheard = unanswered.includes(lost);
    answered(lost.command);
    own.add(lost.command);
    follow(answer.command);
    return unheard;
  } catch (error) {
    if (error.code !== "no_such_command") throw error;
    return false;
  }
}

function answered(id) {
  unanswered = unanswered.filter(({ command }) => command !== id);
  keep(UNANSWERED, unanswered);
}

function randomId() {
  return [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

$("command").addEventListener("submit", async (event) => {
  event.preventDefault();
  const device = selected;
  const name = $("command-name").value.trim();
  const text = $("command-body").value;
  if (!device || !name || sending) return;
  sending = true;
  $("command-send").disabled = true;
  hint("");
  let lost = unanswered.find((lost) => lost.device === device && lost.name === name && lost.text === text);
  try {
    if (lost && (await taken(lost))) {
      hint(`${name} was taken before, though its answer was lost. To send another, send again.`);
    } else {
      // Asked for again after a lost connection, it is known by its id and not done twice.
      if (!lost) {
        lost = { command: randomId(), device, name, text };
        unanswered = [...unanswered, lost].slice(-UNANSWERED_MAX);
        keep(UNANSWERED, unanswered);
      }
      const { command } = lost;
      const answer = await link.ask({ type: "send", device, command, name, text, expires_after_ms: Number($("command-expires").value) });
      answered(command);
      own.add(command);
      follow(answer.command);
      say(`${name}: ${answer.command.state}`);
      if ($("command-body").value === text) $("command-body").value = "";
    }
  } catch (error) {
    if (lost && error.code && error.code !== "unavailable") answered(lost.command);
    set($("command-hint"), error.message);
    say(`${name} was not sent: ${error.message}`);
  }
  sending = false;
  dirty = true;
});

function hint(text) {
  set($("command-hint"), text);
  if (text) say(text);
}

function say(text) {
  $("spoken").textContent = text;
}

// ---- what is shown

function render() {
  if (dirty) {
    dirty = false;
    renderDevices();
    renderDevice();
    renderReadings();
    renderCommands();
  }
}

function renderDevices() {
  const wanted = $("filter").value.trim().toLowerCase();
  const all = [...devices.values()].filter((device) => !device.revoked).sort((a, b) => a.id.localeCompare(b.id));
  const shown = all.filter(({ id, tags }) => [id, ...tags].some((text) => text.toLowerCase().includes(wanted)));
  patch($("devices"), shown, ({ id }) => id, makeDevice, (node, device) => {
    const { button, dot, name, value, seen } = node.parts;
    button.setAttribute("aria-current", String(device.id === selected));
    button.dataset.online = String(device.online);
    dot.className = device.online ? "dot online" : "dot";
    set(name, device.id);
    const latest = firstSeries(device)?.latest;
    set(value, latest?.shown ?? "");
    value.title = latest?.exact ?? "";
    set(seen, presence(device) + (device.tags.length ? ` · ${device.tags.join(", ")}` : ""));
  });
  const here = all.filter(({ online }) => online).length;
  set($("devices-count"), all.length ? `${here} of ${all.length} online` : "");
  $("devices-empty").hidden = shown.length > 0 || !welcome;
  set($("devices-empty"), all.length ? "No device has that in its name or tags." : "No device is enrolled yet. The command “unhidra enroll” makes one.");
}

function makeDevice({ id }) {
  const node = document.createElement("li");
  const button = make("button", "device", node);
  button.type = "button";
  button.dataset.testid = "device";
  button.dataset.device = id;
  const dot = make("span", "dot", button);
  dot.setAttribute("aria-hidden", "true");
  const parts = { button, dot, name: make("span", "name", button), value: make("span", "value", button), seen: make("span", "seen", button) };
  button.addEventListener("click", () => select(id));
  node.parts = parts;
  return node;
}

function select(id) {
  selected = id;
  dirty = true;
  const url = new URL(location.href);
  url.searchParams.set("device", id);
  history.replaceState(null, "", url);
  render();
  if (welcome) look(id).catch((error) => notice(error.message));
}

function presence(device) {
  if (device.online && !welcome) return "Was online when the connection was lost";
  if (device.online) return device.since ? `Online for ${span(now() - device.since)}` : "Online";
  const last = Math.max(device.heardAt, device.since ?? 0);
  return last ? `Last seen ${span(now() - last)} ago` : "Never seen";
}

function renderDevice() {
  const device = devices.get(selected);
  set($("device-title"), device?.id ?? "No device selected");
  set($("command-title"), device ? `Command ${device.id}` : "Command");
  set($("device-sub"), device ? presence(device) : "Choose one from the list.");
  const all = [...(device?.series.values() ?? [])];
  patch($("tiles"), all, ({ name }) => `${selected}/${name}`, makeTile, (node, series) => {
    node.parts.swatch.style.color = `var(--series-${series.colour})`;
    set(node.parts.name, series.name);
    const { shown, unit, exact } = series.latest;
    set(node.parts.number, unit ? shown.slice(0, -unit.length - 1) : shown);
    set(node.parts.unit, unit);
    node.parts.number.title = exact;
  });
  $("chart-empty").hidden = all.length > 0;
  set($("chart-empty"), device?.rows.length ? "These readings hold no numbers to draw. They are listed below." : "Numbers appear here as they arrive.");
  const latest = all.map(({ name, latest }) => `${name} ${latest.shown}`).join(", ");
  $("chart").setAttribute("aria-label", latest ? `Chart of ${selected}. Latest: ${latest}` : "Chart of the latest readings");
}

function makeTile(series) {
  const node = document.createElement("div");
  node.className = "tile";
  node.dataset.testid = "tile";
  node.dataset.series = series.name;
  const label = make("p", "label", node);
  const swatch = make("span", "swatch", label);
  const name = make("span", "", label);
  const value = make("p", "", node);
  const number = make("span", "number", value);
  number.dataset.testid = "tile-value";
  node.parts = { swatch, name, number, unit: make("span", "unit", value) };
  return node;
}

function renderReadings() {
  const device = devices.get(selected);
  const rows = device?.rows ?? [];
  patch($("readings"), rows, ({ kind, offset }) => `${selected}/${kind === "gap" ? "gap/" : ""}${offset}`, (row) => (row.kind === "gap" ? makeGap(row) : makeRow(row)), () => {});
  $("readings-empty").hidden = rows.length > 0;
  const recent = device?.arrivals.filter((at) => at > now() - RATE_MS).length ?? 0;
  set($("rate"), recent ? `${((recent * 1000) / RATE_MS).toFixed(1)} per second` : "");
}

function makeGap({ offset, unlisted }) {
  const node = document.createElement("tr");
  node.className = "gap";
  node.dataset.testid = "gap";
  node.dataset.offset = offset;
  const cell = make("td", "", node);
  cell.colSpan = 4;
  set(cell, unlisted ? `Readings up to place ${offset} are not listed here` : `Readings are missing, up to place ${offset}`);
  return node;
}

function makeRow({ kind, name, received_at, device_time, body, offset, status }) {
  const node = document.createElement("tr");
  node.dataset.testid = "reading";
  node.dataset.offset = offset;
  if (body.number !== null) node.dataset.n = body.number;
  const time = make("td", "time", node);
  set(time, new Date(received_at).toLocaleTimeString([], { hour12: false }));
  time.title = device_time ? `Taken ${new Date(device_time).toLocaleString()} by the device's clock` : "The device has no clock";
  const what = make("td", "", node);
  set(what, name || "–");
  if (kind !== "reading") set(make("span", "kind", what), kind);
  const value = make("td", `num ${body.raw && kind === "reading" ? "raw" : ""}`, node);
  set(value, kind === "receipt" ? status : body.shown);
  value.title = kind === "receipt" ? value.textContent : body.exact;
  value.dataset.testid = "reading-value";
  const no = make("td", "num no", node);
  set(no, body.number === null ? "" : String(body.number));
  no.title = body.number === null ? "" : body.exact;
  return node;
}

function renderCommands() {
  const mine = [...commands.values()].filter(({ device }) => device === selected).sort((a, b) => b.created_at - a.created_at);
  patch($("commands"), mine, ({ command }) => command, makeCommand, (node, command) => {
    const state = expired(command) ? "expired" : command.state;
    node.dataset.state = state;
    set(node.parts.state, state);
    set(node.parts.where, [new Date(command.created_at).toLocaleTimeString([], { hour12: false }), command.command.slice(0, 8), noted(command)].filter(Boolean).join(" · "));
    const reached = STEPS.indexOf(state);
    node.parts.steps.forEach((step, at) => step.classList.toggle("past", reached < 0 ? true : at <= reached));
  });
  $("commands-empty").hidden = mine.length > 0;
  const may = welcome?.may_command;
  $("command-send").disabled = sending || !may || !selected;
  if (welcome && !may) set($("command-hint"), "This token may look and not command.");
}

// One that was sent may have been done in time: of those the node says when they are over.
const expired = ({ state, expires_at, attempts }) => STEPS.includes(state) && !attempts && expires_at < now();

function noted({ state, times, cause, late }) {
  if (late) return `the device said ${late.status} after the end`;
  if (cause) return cause;
  return state === "delivered" && times?.acting ? "the device is at it" : "";
}

function makeCommand({ name }) {
  const node = document.createElement("li");
  node.className = "command";
  node.dataset.testid = "command";
  node.dataset.name = name;
  const line = make("div", "line", node);
  set(make("span", "what", line), name);
  const state = make("span", "state", line);
  state.dataset.testid = "command-state";
  const where = make("p", "where", node);
  const bar = make("div", "steps", node);
  bar.setAttribute("aria-hidden", "true");
  node.parts = { state, where, steps: [0, 1, 2, 3].map(() => make("i", "", bar)) };
  return node;
}

// ---- small things

// Makes the children of `parent` those of `items`, in order, touching only what differs.
function patch(parent, items, key, create, update) {
  const old = new Map([...parent.children].map((node) => [node.dataset.key, node]));
  let next = parent.firstElementChild;
  for (const item of items) {
    const id = key(item);
    let node = old.get(id);
    if (node) {
      old.delete(id);
    } else {
      node = create(item);
      node.dataset.key = id;
    }
    if (node === next) next = next.nextElementSibling;
    else parent.insertBefore(node, next);
    update(node, item);
  }
  for (const node of old.values()) node.remove();
}

function make(tag, className, parent) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  parent.append(node);
  return node;
}

function set(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

function stored(name) {
  try {
    const list = JSON.parse(sessionStorage.getItem(name));
    return Array.isArray(list) ? list : [];
  } catch {
    return [];
  }
}

// Where the browser keeps no more, it is held in memory alone.
function keep(name, list) {
  try {
    sessionStorage.setItem(name, JSON.stringify(list));
  } catch {}
}

function notice(text) {
  $("notice").hidden = !text;
  set($("notice"), text ? text[0].toUpperCase() + text.slice(1) : "");
}

const now = () => Date.now() + skew;
const firstSeries = ({ series }) => series.values().next().value;

function span(ms) {
  const s = Math.max(0, Math.round(ms / 1000));
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min`;
  if (s < 86400) return `${Math.floor(s / 3600)} h`;
  return `${Math.floor(s / 86400)} d`;
}

function theme(dark) {
  document.documentElement.dataset.theme = dark ? "dark" : "light";
  $("theme").setAttribute("aria-label", dark ? "Switch to light colours" : "Switch to dark colours");
  chart.restyle();
}

const THEME = "unhidra.theme";
const systemDark = matchMedia("(prefers-color-scheme: dark)");
const chosen = () => localStorage.getItem(THEME);
systemDark.addEventListener("change", () => chosen() ?? theme(systemDark.matches));
$("theme").addEventListener("click", () => {
  const dark = document.documentElement.dataset.theme !== "dark";
  localStorage.setItem(THEME, dark ? "dark" : "light");
  theme(dark);
});
theme(chosen() ? chosen() === "dark" : systemDark.matches);

$("gate-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const token = $("token").value.trim();
  $("token").value = "";
  if (token) link.enter(token);
});
$("filter").addEventListener("input", () => {
  dirty = true;
  render();
});
for (const button of document.querySelectorAll("[data-window]")) {
  button.addEventListener("click", () => {
    windowMs = Number(button.dataset.window) * 1000;
    for (const other of document.querySelectorAll("[data-window]")) other.setAttribute("aria-pressed", String(other === button));
  });
}

// Four times a second is as often as anybody reads; the ages of things move once a second.
let ticks = 0;
setInterval(() => {
  if (document.hidden) return;
  if (++ticks % 4 === 0) dirty = true;
  render();
  chart.show([...(devices.get(selected)?.series.values() ?? [])], windowMs, now);
}, 250);

link.start();
