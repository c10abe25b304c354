// A node as the console sees it, played: it says what a scenario wants, and keeps what it was asked.

import { readFileSync } from "node:fs";
import { join } from "node:path";

export const ORIGIN = "http://node.test";
// The policy the gateway sends (gateway/src/net/http.rs), in what a script could break.
const POLICY = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'";
const TYPES = { html: "text/html; charset=utf-8", js: "text/javascript; charset=utf-8", css: "text/css; charset=utf-8", svg: "image/svg+xml" };

export class Node {
  heard = []; // every frame of the page, with the number of its connection
  connections = [];
  devices = ["pump-1", "pump-2"];
  readings = new Map(); // of a device, all that are stored
  commands = new Map();
  cursor = 0; // the newest place
  sessions = []; // what POST /v1/session answers, in turn; without, a session
  exchanged = [];
  answers = {}; // a scenario's own answer by type: (frame, say, socket) => whether it has answered
  #page;
  #folder;

  constructor(page, folder) {
    this.#page = page;
    this.#folder = folder;
  }

  async serve() {
    await this.#page.route(`${ORIGIN}/**`, (route) => this.#serve(route));
    await this.#page.routeWebSocket(/\/v1\/ws$/, (socket) => this.#welcome(socket));
  }

  #serve(route) {
    const path = new URL(route.request().url()).pathname;
    if (path === "/v1/session") {
      this.exchanged.push(route.request().postDataJSON().token);
      return route.fulfill(this.sessions.shift() ?? { json: { token: `session-${this.exchanged.length}`, expires_at: Date.now() + 1e7 } });
    }
    const file = path === "/" ? "index.html" : path.replace("/console/", "");
    const body = readFileSync(join(this.#folder, file));
    return route.fulfill({ body, contentType: TYPES[file.split(".").at(-1)], headers: { "content-security-policy": POLICY } });
  }

  #welcome(socket) {
    const connection = this.connections.push(socket) - 1;
    const say = (frame) => socket.send(JSON.stringify(frame));
    socket.onMessage((text) => {
      const frame = JSON.parse(text);
      this.heard.push({ connection, ...frame });
      const answered = this.answers[frame.type]?.(frame, say, socket);
      if (!answered) this.#answer(frame, say);
    });
  }

  #answer(frame, say) {
    const { id, device } = frame;
    switch (frame.type) {
      case "authenticate":
        return say({ type: "welcome", version: 1, server_time: Date.now(), expires_at: Date.now() + 1e7, devices: "*", may_command: true, ping_s: 22, frame_len_max: 131072, subscriptions_max: 64 });
      case "subscribe":
        say({ type: "subscribed", id, device, cursor: frame.since ?? this.place() });
        if (frame.since) this.replay(Number(frame.since.slice(1)), say);
        return say({ type: "caught_up", device });
      case "devices":
        return say({ type: "devices", id, more: false, devices: this.devices.map((device) => ({ device, tags: [], class: "", suite: 1, enrolled_at: 1, online: true, since: 1 })) });
      case "history": {
        const all = this.readings.get(device) ?? [];
        return say({ type: "history", id, device, more: all.length > frame.newest, readings: all.slice(-frame.newest) });
      }
      case "commands":
        return say({ type: "commands", id, commands: [] });
      case "command": {
        const command = this.commands.get(frame.command);
        return say(command ? { type: "command", id, command } : { type: "error", id, code: "no_such_command", message: "there is no such command" });
      }
      case "send": {
        if (!this.commands.has(frame.command)) this.commands.set(frame.command, command(frame));
        return say({ type: "command", id, command: this.commands.get(frame.command) });
      }
    }
  }

  place() {
    return `c${this.cursor}`;
  }

  // Stores a reading; `tell` says it to the page, which is what a live one is.
  store(device, text, offset = this.cursor + 1) {
    this.cursor = offset;
    const all = this.readings.get(device) ?? this.readings.set(device, []).get(device);
    const reading = { device, partition: 0, offset, prev: all.at(-1)?.offset ?? 0, kind: "reading", name: "level", received_at: Date.now(), reading_id: String(offset), text };
    all.push(reading);
    return reading;
  }

  tell(...readings) {
    this.say({ type: "readings", device: "*", cursor: this.place(), readings });
  }

  replay(after, say) {
    const readings = [...this.readings.values()].flat().filter(({ offset }) => offset > after);
    if (readings.length) say({ type: "readings", device: "*", cursor: this.place(), readings });
  }

  say(frame) {
    this.connections.at(-1).send(JSON.stringify(frame));
  }

  async end(code, reason = "") {
    await this.connections.at(-1).close({ code, reason });
  }

  asked(type) {
    return this.heard.filter((frame) => frame.type === type);
  }
}

// A command that the node has just taken.
export function command({ command, device, name }) {
  const at = Date.now();
  return { command, device, name, state: "accepted", created_at: at, expires_at: at + 600000, times: { accepted: at }, attempts: 0, asked_by: "token:test" };
}
