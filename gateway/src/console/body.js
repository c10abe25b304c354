// What a reading's body says. A JSON object with a number `v` is a measurement: `n` is its number
// and `unit` its unit. Anything else is shown as it is: text, or bytes in hexadecimal. Numbers are shown rounded, and
// JavaScript rounds the longest itself: `exact` is what was said.

const SHOWN_MAX = 96;
const EXACT_MAX = 1000;

export function interpret(reading) {
  if (reading.base64 !== undefined) {
    const shown = hex(reading.base64);
    return { value: null, unit: "", number: null, shown, exact: shown, raw: true };
  }
  const text = reading.text ?? "";
  const exact = cut(text, EXACT_MAX);
  const measured = measurement(text);
  if (measured) return { ...measured, exact };
  return { value: null, unit: "", number: null, shown: cut(text, SHOWN_MAX), exact, raw: true };
}

function measurement(text) {
  let body;
  try {
    body = JSON.parse(text);
  } catch {
    return null;
  }
  if (Number.isFinite(body)) return { value: body, unit: "", number: null, shown: format(body), raw: false };
  if (body === null || typeof body !== "object" || !Number.isFinite(body.v)) return null;
  const unit = typeof body.unit === "string" ? cut(body.unit, 12) : "";
  const number = Number.isInteger(body.n) ? body.n : null;
  const shown = unit ? `${format(body.v)} ${unit}` : format(body.v);
  return { value: body.v, unit, number, shown, raw: false };
}

// Two digits where there are some, so that a column of them stays in line.
export function format(value) {
  if (Number.isInteger(value)) return String(value);
  const size = Math.abs(value);
  if (size >= 1e7 || size < 0.01) return value.toPrecision(4);
  return value.toFixed(2);
}

function hex(base64) {
  const bytes = Uint8Array.from(atob(base64), (c) => c.charCodeAt(0));
  const start = Array.from(bytes.slice(0, 24), (byte) => byte.toString(16).padStart(2, "0")).join(" ");
  return bytes.length > 24 ? `${start} … (${bytes.length} bytes)` : start;
}

function cut(text, max) {
  const characters = Array.from(text);
  return characters.length > max ? `${characters.slice(0, max).join("")}…` : text;
}
