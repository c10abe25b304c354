// The list of devices, and the readings of the one that is looked at.

import { RATE_MS, devices } from "./held.js";
import { $, make, now, page, patch, set, span } from "./page.js";

export function renderDevices() {
  const wanted = $("filter").value.trim().toLowerCase();
  const all = [...devices.values()].filter((device) => !device.revoked).sort((a, b) => a.id.localeCompare(b.id));
  const shown = all.filter(({ id, tags }) => [id, ...tags].some((text) => text.toLowerCase().includes(wanted)));
  patch($("devices"), shown, ({ id }) => id, makeDevice, (node, device) => {
    const { button, dot, name, value, seen } = node.parts;
    button.setAttribute("aria-current", String(device.id === page.selected));
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
  $("devices-empty").hidden = shown.length > 0 || !page.welcome;
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
  node.parts = parts;
  return node;
}

function presence(device) {
  if (device.online && !page.welcome) return "Was online when the connection was lost";
  if (device.online) return device.since ? `Online for ${span(now() - device.since)}` : "Online";
  const last = Math.max(device.heardAt, device.since ?? 0);
  return last ? `Last seen ${span(now() - last)} ago` : "Never seen";
}

export function renderDevice() {
  const device = devices.get(page.selected);
  set($("device-title"), device?.id ?? "No device selected");
  set($("command-title"), device ? `Command ${device.id}` : "Command");
  set($("device-sub"), device ? presence(device) : "Choose one from the list.");
  const all = [...(device?.series.values() ?? [])];
  patch($("tiles"), all, ({ name }) => `${page.selected}/${name}`, makeTile, (node, series) => {
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
  $("chart").setAttribute("aria-label", latest ? `Chart of ${page.selected}. Latest: ${latest}` : "Chart of the latest readings");
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

export function renderReadings() {
  const device = devices.get(page.selected);
  const rows = device?.rows ?? [];
  patch($("readings"), rows, ({ kind, offset }) => `${page.selected}/${kind === "gap" ? "gap/" : ""}${offset}`, (row) => (row.kind === "gap" ? makeGap(row) : makeRow(row)), () => {});
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

const firstSeries = ({ series }) => series.values().next().value;
