// The console: what the node says, kept for a while, and shown.

import { Chart } from "./chart.js";
import { follow, forgetCommands, recall, renderCommands, sendsWith } from "./commands.js";
import { deviceOf, devices, firstDevice, forgetOld, lack, leave, missing, rejoin, take } from "./held.js";
import { Link } from "./link.js";
import { $, notice, now, page } from "./page.js";
import { renderDevice, renderDevices, renderReadings } from "./shown.js";

const HISTORY = 400; // readings asked for when a device is shown
const GLIMPSE = 6; // readings asked for of a device that is only listed
const GLIMPSES_MAX = 64; // devices for which that is done
const REFUSALS_MAX = 8; // of one round: the node ends a connection that is refused too often
const AGAIN_MS = 5000; // after which is asked again what the store did not give, and twice as long each time
const AGAIN_MAX_MS = 60000;
const AWAY_MS = 600000; // after which a page asks for history and does not replay all it missed

const cursors = new Map(); // by audience: a device, or all of them
let windowMs = 60000;
let behind = new Set();
let heardAt = 0;
let again = 0; // the timer of what is asked again

const chart = new Chart($("chart"));
const link = new Link({ open: opened, frame: heard, state: linkState, refused, entered: forget });

// ---- the connection

function linkState(state, retryMs) {
  const text = { connecting: "Connecting", "catching-up": "Catching up", live: "Live", offline: "Not connected" }[state];
  $("link").dataset.state = state;
  $("link-text").textContent = state === "offline" && retryMs > 1500 ? `${text}, again in ${Math.round(retryMs / 1000)} s` : text;
  if (state !== "live" && state !== "catching-up") page.welcome = null;
  document.body.dataset.link = page.welcome ? "up" : "down";
  page.dirty = true;
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
  page.welcome = frame;
  page.skew = frame.server_time - Date.now();
  notice(null);
  $("gate").hidden = true;
  $("main").hidden = false;
  linkState("catching-up");
  if (Date.now() - heardAt > AWAY_MS) cursors.clear();
  const audiences = frame.devices === "*" ? ["*"] : frame.devices.slice(0, frame.subscriptions_max);
  behind = new Set(audiences);
  try {
    for (const audience of audiences) await subscribe(audience);
  } catch (error) {
    if (page.welcome === frame) notice(error.message);
  }
  await catchUp(frame);
}

// Asks what the connection does not bring by itself: first what became of commands, for somebody may be about to send
// one again. What the store does not give now is asked for again.
async function catchUp(frame, pause = AGAIN_MS) {
  let left = null;
  for (const question of [() => recall(link), list]) {
    try {
      left = (await question()) ?? left;
    } catch (error) {
      left = error;
    }
  }
  if (!left || page.welcome !== frame) return;
  notice(left.message);
  if (left.code !== "unavailable") return;
  clearTimeout(again);
  again = setTimeout(() => page.welcome === frame && catchUp(frame, Math.min(2 * pause, AGAIN_MAX_MS)), pause);
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

// Gives the last refusal: what is told of one device does not wait for what cannot be told of another.
async function list() {
  let after;
  for (;;) {
    const listed = await link.ask(after ? { type: "devices", after } : { type: "devices" });
    for (const entry of listed.devices) Object.assign(deviceOf(entry.device), { enrolled: true, tags: entry.tags, online: entry.online, since: entry.since, revoked: entry.revoked_at });
    after = listed.devices.at(-1)?.device;
    page.dirty = true;
    if (!listed.more || !after) break;
  }
  if (!page.selected || !devices.has(page.selected)) page.selected = firstDevice();
  let left = null;
  let refusals = 0;
  const tried = async (ask) => {
    try {
      if (refusals < REFUSALS_MAX) await ask();
    } catch (error) {
      if (!error.code) throw error;
      refusals++;
      left = error;
    }
  };
  if (page.selected) {
    await tried(() => remember(page.selected, HISTORY));
    await tried(() => open(page.selected));
  }
  // First those that show what was true before the page was away.
  const unknown = [...devices.values()].filter(({ id, stale, rows }) => id !== page.selected && (stale || !rows.length));
  unknown.sort((a, b) => Number(b.stale) - Number(a.stale) || a.id.localeCompare(b.id));
  for (const { id } of unknown.slice(0, GLIMPSES_MAX)) await tried(() => remember(id, GLIMPSE));
  unknown.slice(GLIMPSES_MAX).forEach(forgetOld);
  return left;
}

async function look(id) {
  await remember(id, HISTORY);
  await open(id);
}

async function open(device) {
  const { commands } = await link.ask({ type: "commands", device });
  commands.forEach(follow);
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
      page.dirty = true;
      break;
    case "presence_stale":
      if (page.welcome) catchUp(page.welcome);
      break;
    case "command_changed":
      follow(frame.command);
      break;
    case "error":
      notice(frame.message);
      break;
  }
}

// The next session may be with a node that was restored: its places begin lower than those held here, and what it says
// would pass for seen. Commands are asked for anew.
function forget() {
  devices.clear();
  cursors.clear();
  forgetCommands();
  // A row is made once, and known by its place: another reading may have that now.
  $("readings").replaceChildren();
  page.dirty = true;
}

// ---- what is shown

function render() {
  if (page.dirty) {
    page.dirty = false;
    renderDevices();
    renderDevice();
    renderReadings();
    renderCommands();
  }
}

function select(id) {
  page.selected = id;
  page.dirty = true;
  const url = new URL(location.href);
  url.searchParams.set("device", id);
  history.replaceState(null, "", url);
  render();
  if (page.welcome) look(id).catch((error) => notice(error.message));
}

// ---- what is set by hand

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
$("devices").addEventListener("click", ({ target }) => {
  const button = target.closest("[data-device]");
  if (button) select(button.dataset.device);
});
sendsWith(link);
$("filter").addEventListener("input", () => {
  page.dirty = true;
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
  if (++ticks % 4 === 0) page.dirty = true;
  render();
  chart.show([...(devices.get(page.selected)?.series.values() ?? [])], windowMs, now);
}, 250);

link.start();
