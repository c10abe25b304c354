// Devices and their readings, as far as the page keeps them.

import { interpret } from "./body.js";
import { thin } from "./chart.js";
import { notice, now, page } from "./page.js";

const POINTS_MAX = 4000; // of one series
const POINTS_ALL_MAX = 400000; // of all series together
const SERIES_MAX = 64; // of one device: one that invents names does not fill the page
const ROWS_MAX = 60; // in the table, of one device
const SEEN_MAX = 4096; // places remembered, so that history and live do not show a row twice
export const RATE_MS = 5000; // over which the rate is taken
const FIRST = ["temperature", "humidity"]; // shown first where a device measures them

export const devices = new Map();
let pointsHeld = 0; // at most so many: those of devices that were forgotten are counted until it is looked at

export function deviceOf(id) {
  let device = devices.get(id);
  if (!device) {
    device = { id, tags: [], online: false, since: null, heardAt: 0, series: new Map(), rows: [], seen: new Set(), arrivals: [], stale: false, heldTo: 0 };
    devices.set(id, device);
    page.selected ??= id;
  }
  return device;
}

export function firstDevice() {
  const all = [...devices.values()].sort((a, b) => Number(b.online) - Number(a.online) || a.id.localeCompare(b.id));
  return all[0]?.id ?? null;
}

// What a device said before the page went away, where it is not asked what followed: nothing is better than an old
// value that passes for the newest. What has come since stays.
export function forgetOld(device) {
  if (!device.stale) return;
  const since = (offset) => offset > device.heldTo;
  device.rows = device.rows.filter(({ offset }) => since(offset));
  device.seen = new Set([...device.seen].filter(since));
  for (const [name, series] of device.series) {
    series.points = series.points.filter(({ offset }) => since(offset));
    if (!since(series.offset)) device.series.delete(name);
  }
  Object.assign(device, { stale: false, heldTo: 0 });
}

// What comes next may not join what is held: `heldTo` is where that ends.
export function leave(device) {
  forgetOld(device);
  device.stale = true;
  device.heldTo = device.rows[0]?.offset ?? 0;
  for (const row of device.rows) row.unlisted = false;
}

// Marks what lies between the rows held and the history from `first` on, until a longer one fills it.
export function rejoin(device, first, more) {
  device.stale = false;
  if (!device.heldTo || !first) return;
  device.rows = device.rows.filter(({ unlisted }) => !unlisted);
  if (more && first.prev > device.heldTo) lack({ device: device.id, offset: first.prev, unlisted: true });
  else device.heldTo = 0;
}

// A row where readings are not, the last of them at `offset`.
export function lack({ device: id, offset, unlisted = false }) {
  const device = deviceOf(id);
  if (device.rows.some((row) => row.kind === "gap" && row.offset === offset)) return;
  insert(device.rows, { kind: "gap", offset, unlisted }, (row) => -row.offset);
  device.rows.length = Math.min(device.rows.length, ROWS_MAX);
  page.dirty = true;
}

export function missing(gaps) {
  // What was given and went while the replay lasted is not missing here.
  const lacking = gaps.filter(({ device, offset }) => !deviceOf(device).seen.has(offset));
  if (!lacking.length) return;
  lacking.forEach(lack);
  const [first, ...more] = new Set(lacking.map(({ device }) => device));
  notice(`Readings of ${first}${more.length ? ` and of ${more.length} more` : ""} are missing: the node has them no more.`);
}

export function take(reading) {
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
  page.dirty = true;
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
  insert(series.points, { t: reading.received_at, v: body.value, offset: reading.offset }, (point) => point.t);
  pointsHeld++;
  if (series.points.length > POINTS_MAX) pointsHeld -= series.points.splice(0, POINTS_MAX / 4).length;
  if (device.series.size > SERIES_MAX) {
    const oldest = [...device.series.values()].reduce((oldest, series) => (series.offset < oldest.offset ? series : oldest));
    device.series.delete(oldest.name);
    pointsHeld -= oldest.points.length;
  }
  if (pointsHeld > POINTS_ALL_MAX) pointsHeld = thin(devices.values(), devices.get(page.selected), POINTS_ALL_MAX / 2);
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
