// A chart of several series over time, drawn by hand. Series of one unit share a panel; panels
// share the time axis, so that degrees and percent never pretend to have one scale.

import { format } from "./body.js";

const LEFT = 52;
const RIGHT = 12;
const BOTTOM = 22;
const GAP = 28;
const TOP = 8;

export class Chart {
  #canvas;
  #series = [];
  #windowMs = 60000;
  #now = Date.now;
  #pointer = null;
  #colours = {};

  constructor(canvas) {
    this.#canvas = canvas;
    new ResizeObserver(() => this.draw()).observe(canvas);
    canvas.addEventListener("pointermove", (event) => {
      this.#pointer = event.offsetX;
      this.draw();
    });
    canvas.addEventListener("pointerleave", () => {
      this.#pointer = null;
      this.draw();
    });
    canvas.addEventListener("keydown", (event) => this.#key(event));
    canvas.addEventListener("blur", () => {
      this.#pointer = null;
      this.draw();
    });
  }

  // `series`: [{ name, unit, colour, points: [{ t, v }] }], points by time.
  show(series, windowMs, now) {
    this.#series = series;
    this.#windowMs = windowMs;
    this.#now = now;
    this.draw();
  }

  // Colours are read once a theme, not once a frame.
  restyle() {
    const style = getComputedStyle(document.documentElement);
    const colour = (name) => style.getPropertyValue(name).trim();
    this.#colours = { line: colour("--line"), faint: colour("--faint"), ink: colour("--ink"), card: colour("--card") };
    for (let n = 0; n < 6; n++) this.#colours[n] = colour(`--series-${n}`);
    this.draw();
  }

  draw() {
    const { clientWidth: width, clientHeight: height } = this.#canvas;
    if (!width || !height || !this.#colours.line) return;
    const scale = devicePixelRatio || 1;
    if (this.#canvas.width !== Math.round(width * scale) || this.#canvas.height !== Math.round(height * scale)) {
      this.#canvas.width = Math.round(width * scale);
      this.#canvas.height = Math.round(height * scale);
    }
    const pen = this.#canvas.getContext("2d");
    pen.setTransform(scale, 0, 0, scale, 0, 0);
    pen.clearRect(0, 0, width, height);
    pen.font = "12px system-ui, sans-serif";
    const end = this.#now();
    const time = { start: end - this.#windowMs, end, left: LEFT, right: width - RIGHT };
    const panels = this.#panels();
    if (!panels.length) return;
    this.#timeAxis(pen, time, height);
    const each = (height - TOP - BOTTOM - GAP * (panels.length - 1)) / panels.length;
    panels.forEach((panel, at) => {
      const top = TOP + at * (each + GAP);
      this.#panel(pen, time, panel, top, top + each);
    });
    if (this.#pointer !== null) this.#readOut(pen, time, panels, height, width);
  }

  #panels() {
    const panels = new Map();
    for (const series of this.#series) {
      if (!panels.has(series.unit)) panels.set(series.unit, { unit: series.unit, series: [] });
      panels.get(series.unit).series.push(series);
    }
    return [...panels.values()];
  }

  #panel(pen, time, panel, top, bottom) {
    const values = panel.series.flatMap(({ points }) => visible(points, time).map(({ v }) => v));
    const { low, high, step } = bounds(values, bottom - top);
    const y = (v) => bottom - ((v - low) / (high - low)) * (bottom - top);
    panel.y = y;
    pen.textAlign = "right";
    pen.textBaseline = "middle";
    for (let tick = low; tick <= high + step / 2; tick += step) {
      pen.strokeStyle = this.#colours.line;
      pen.lineWidth = 1;
      const at = Math.round(y(tick)) + 0.5;
      line(pen, time.left, at, time.right, at);
      pen.fillStyle = this.#colours.faint;
      pen.fillText(label(tick, step), time.left - 8, at);
    }
    pen.save();
    pen.beginPath();
    pen.rect(time.left, top - 4, time.right - time.left + 6, bottom - top + 8);
    pen.clip();
    for (const { points, colour } of panel.series) this.#curve(pen, time, visible(points, time), y, this.#colours[colour]);
    pen.restore();
    if (panel.unit) {
      pen.textAlign = "left";
      pen.textBaseline = "top";
      const text = panel.unit;
      pen.fillStyle = this.#colours.card;
      pen.fillRect(time.left + 2, top + 2, pen.measureText(text).width + 10, 17);
      pen.fillStyle = this.#colours.faint;
      pen.fillText(text, time.left + 7, top + 4);
    }
  }

  // A gap longer than five usual steps stays a gap: no line is drawn where nothing was measured.
  #curve(pen, time, points, y, colour) {
    if (!points.length) return;
    const x = (t) => place(t, time);
    const steps = points.slice(1).map((point, at) => point.t - points[at].t).sort((a, b) => a - b);
    const usual = steps.length ? steps[Math.floor(steps.length / 2)] : 0;
    pen.strokeStyle = colour;
    pen.lineWidth = 2;
    pen.lineJoin = "round";
    pen.lineCap = "round";
    pen.beginPath();
    let last = null;
    for (const point of points) {
      if (last === null || point.t - last > Math.max(5 * usual, 2000)) pen.moveTo(x(point.t), y(point.v));
      else pen.lineTo(x(point.t), y(point.v));
      last = point.t;
    }
    pen.stroke();
    const newest = points[points.length - 1];
    pen.fillStyle = colour;
    pen.beginPath();
    pen.arc(x(newest.t), y(newest.v), 3.5, 0, 2 * Math.PI);
    pen.fill();
  }

  #timeAxis(pen, time, height) {
    const wanted = Math.max(2, Math.floor((time.right - time.left) / 76));
    const steps = [10, 15, 30, 60, 120, 300, 600, 900].map((s) => s * 1000);
    const step = steps.find((ms) => this.#windowMs / ms <= wanted) ?? 900000;
    pen.fillStyle = this.#colours.faint;
    pen.textBaseline = "bottom";
    pen.textAlign = "center";
    const offset = new Date().getTimezoneOffset() * 60000;
    for (let t = Math.ceil((time.start - offset) / step) * step + offset; t <= time.end; t += step) {
      const x = place(t, time);
      if (x > time.left + 16 && x < time.right - 20) pen.fillText(clock(t, step < 60000), x, height);
    }
  }

  #readOut(pen, time, panels, height, width) {
    const x = Math.min(Math.max(this.#pointer, time.left), time.right);
    const at = time.start + ((x - time.left) / (time.right - time.left)) * (time.end - time.start);
    const rows = [];
    for (const panel of panels) {
      for (const series of panel.series) {
        const point = nearest(visible(series.points, time), at);
        if (point) rows.push({ series, point, y: panel.y(point.v) });
      }
    }
    if (!rows.length) return;
    pen.strokeStyle = this.#colours.faint;
    pen.lineWidth = 1;
    line(pen, Math.round(x) + 0.5, TOP, Math.round(x) + 0.5, height - BOTTOM);
    for (const { series, point, y } of rows) {
      pen.fillStyle = this.#colours.card;
      pen.strokeStyle = this.#colours[series.colour];
      pen.lineWidth = 2;
      pen.beginPath();
      pen.arc(place(point.t, time), y, 4, 0, 2 * Math.PI);
      pen.fill();
      pen.stroke();
    }
    const texts = rows.map(({ series, point }) => `${series.name}  ${format(point.v)}${series.unit ? ` ${series.unit}` : ""}`);
    const head = clock(rows[0].point.t, true);
    const wide = Math.max(...[head, ...texts].map((text) => pen.measureText(text).width)) + 34;
    const tall = 26 + 18 * texts.length;
    const left = x + wide + 14 > width ? x - wide - 12 : x + 12;
    pen.fillStyle = this.#colours.card;
    pen.strokeStyle = this.#colours.line;
    pen.lineWidth = 1;
    pen.beginPath();
    pen.roundRect(left, TOP + 6, wide, tall, 8);
    pen.fill();
    pen.stroke();
    pen.textAlign = "left";
    pen.textBaseline = "middle";
    pen.fillStyle = this.#colours.faint;
    pen.fillText(head, left + 12, TOP + 20);
    rows.forEach(({ series }, n) => {
      const y = TOP + 39 + 18 * n;
      pen.fillStyle = this.#colours[series.colour];
      pen.fillRect(left + 12, y - 1.5, 10, 3);
      pen.fillStyle = this.#colours.ink;
      pen.fillText(texts[n], left + 27, y);
    });
  }

  #key(event) {
    const step = { ArrowLeft: -12, ArrowRight: 12 }[event.key];
    if (!step) return;
    event.preventDefault();
    const width = this.#canvas.clientWidth;
    this.#pointer = Math.min(Math.max((this.#pointer ?? width - RIGHT) + step, LEFT), width - RIGHT);
    this.draw();
  }
}

// Keeps all series of `devices` within `max` points together, and gives how many are left. The older half of each goes,
// that of the device which is `shown` last.
export function thin(devices, shown, max) {
  const count = (some) => some.reduce((sum, { points }) => sum + points.length, 0);
  const halve = (some) => some.forEach(({ points }) => points.splice(0, Math.ceil(points.length / 2)));
  const of = (some) => some.flatMap(({ series }) => [...series.values()]);
  const others = of([...devices].filter((device) => device !== shown));
  const last = of(shown ? [shown] : []);
  for (;;) {
    const [away, here] = [count(others), count(last)];
    if (away + here <= max) return away + here;
    halve(away ? others : last);
  }
}

const place = (t, { start, end, left, right }) => left + ((t - start) / (end - start)) * (right - left);

function visible(points, { start, end }) {
  let from = points.length;
  while (from > 0 && points[from - 1].t >= start) from--;
  // One before the window, so that the line comes in from the edge.
  return points.slice(Math.max(0, from - 1)).filter(({ t }) => t <= end + 1000);
}

function nearest(points, t) {
  return points.reduce((best, point) => (best && Math.abs(best.t - t) <= Math.abs(point.t - t) ? best : point), null);
}

function bounds(values, height) {
  let [low, high] = values.length ? [values[0], values[0]] : [0, 1];
  // A loop, since a call takes only so many arguments.
  for (const value of values) {
    if (value < low) low = value;
    if (value > high) high = value;
  }
  // Noise in the last digit is not drawn as if it were a storm.
  const least = Math.max(Math.abs(high) * 0.01, 0.1);
  if (high - low < least) [low, high] = [(low + high - least) / 2, (low + high + least) / 2];
  const rough = (high - low) / Math.max(2, Math.floor(height / 44));
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((n) => n * power).find((n) => n >= rough);
  return { low: Math.floor(low / step) * step, high: Math.ceil(high / step) * step, step };
}

function label(tick, step) {
  const digits = Math.max(0, Math.min(6, Math.ceil(-Math.log10(step) + (String(step).includes("25") ? 1 : 0))));
  return (Math.abs(tick) < step / 1e6 ? 0 : tick).toFixed(digits);
}

function clock(t, seconds) {
  return new Date(t).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", second: seconds ? "2-digit" : undefined, hour12: false });
}

function line(pen, x1, y1, x2, y2) {
  pen.beginPath();
  pen.moveTo(x1, y1);
  pen.lineTo(x2, y2);
  pen.stroke();
}
