// The connection to the node (gateway/PROTOCOL.md): lets itself in, comes back after a loss from
// where it was, and matches answers to questions.

const SESSION = "unhidra.session";
const BACKOFF_MS = 400;
const BACKOFF_MAX_MS = 15000;
// The node asks after at most 25 s of silence. Twice that without a word is a dead connection.
const SILENCE_MS = 50000;

export class Link {
  #socket = null;
  #token = null;
  #questions = new Map();
  #next = 1;
  #attempt = 0;
  #timer = 0;
  #silence = 0;
  #comeBackAfter = null;
  #handlers;

  // `handlers`: open(welcome), frame(frame), state(state, retryMs), refused(reason)
  constructor(handlers) {
    this.#handlers = handlers;
    addEventListener("online", () => this.#hurry());
    document.addEventListener("visibilitychange", () => document.hidden || this.#hurry());
  }

  // Uses the token of the address, where there is one, else the session of this tab.
  async start() {
    const given = new URLSearchParams(location.hash.slice(1)).get("token");
    if (given) history.replaceState(null, "", location.pathname + location.search);
    const kept = sessionStorage.getItem(SESSION);
    if (given) return this.enter(given, kept);
    if (!kept) return this.#handlers.refused(null);
    this.#token = kept;
    this.#connect();
  }

  // Spends a one-time token for a session. `kept` is tried where the token was spent before:
  // somebody has opened the same address again.
  async enter(once, kept = null) {
    this.#handlers.state("connecting");
    try {
      const answer = await fetch("/v1/session", {
        method: "POST",
        headers: { "content-type": "application/json" },
        body: JSON.stringify({ token: once }),
      });
      const body = await answer.json();
      if (answer.ok) {
        this.#token = body.token;
        sessionStorage.setItem(SESSION, body.token);
      } else if (kept) {
        this.#token = kept;
      } else {
        return this.#handlers.refused(body.message ?? "The token was refused.");
      }
    } catch {
      this.#handlers.state("offline", BACKOFF_MAX_MS);
      this.#timer = setTimeout(() => this.enter(once, kept), this.#backoff());
      return;
    }
    this.#connect();
  }

  // Asks, and gives the answer; throws the error frame, or an error where the connection ends.
  ask(frame) {
    return new Promise((resolve, reject) => {
      if (this.#socket?.readyState !== WebSocket.OPEN) return reject(new Error("There is no connection to the node."));
      const id = this.#next++;
      this.#questions.set(id, { resolve, reject });
      this.#socket.send(JSON.stringify({ ...frame, id }));
    });
  }

  #connect() {
    clearTimeout(this.#timer);
    this.#timer = 0;
    this.#comeBackAfter = null;
    this.#handlers.state("connecting");
    const scheme = location.protocol === "https:" ? "wss" : "ws";
    const socket = new WebSocket(`${scheme}://${location.host}/v1/ws`);
    this.#socket = socket;
    socket.onopen = () => {
      this.#listen();
      socket.send(JSON.stringify({ type: "authenticate", version: 1, token: this.#token }));
    };
    socket.onmessage = (message) => {
      this.#listen();
      this.#heard(JSON.parse(message.data));
    };
    socket.onclose = (event) => {
      if (this.#socket === socket) this.#lost(event);
    };
  }

  #heard(frame) {
    switch (frame.type) {
      case "ping":
        this.#socket.send('{"type":"pong"}');
        return;
      case "welcome":
        this.#attempt = 0;
        this.#handlers.open(frame);
        return;
      case "closing":
        this.#comeBackAfter = frame.reconnect_after_ms ?? null;
        return;
    }
    const question = frame.id === undefined ? undefined : this.#questions.get(frame.id);
    if (question) {
      this.#questions.delete(frame.id);
      if (frame.type === "error") question.reject(Object.assign(new Error(frame.message), { code: frame.code }));
      else question.resolve(frame);
      return;
    }
    this.#handlers.frame(frame);
  }

  #lost(event) {
    clearTimeout(this.#silence);
    this.#socket = null;
    for (const { reject } of this.#questions.values()) reject(new Error("The connection to the node was lost."));
    this.#questions.clear();
    // 3500 to 3999: coming back with the same token would end the same way.
    if (event.code >= 3500 && event.code < 4000) {
      if (event.reason === "token_refused" || event.reason === "token_expired") {
        sessionStorage.removeItem(SESSION);
        this.#handlers.refused(event.reason === "token_expired" ? "Your session has expired." : "Your session is no longer known to the node.");
      } else {
        this.#handlers.state("offline");
        this.#handlers.frame({ type: "error", code: event.reason, message: `The node ended the connection: ${event.reason}. Reload the page.` });
      }
      return;
    }
    const wait = this.#comeBackAfter ?? this.#backoff();
    this.#handlers.state("offline", wait);
    this.#timer = setTimeout(() => this.#connect(), wait);
  }

  // Full jitter: anything between nothing and the bound, so that pages do not come back together.
  #backoff() {
    const bound = Math.min(BACKOFF_MAX_MS, BACKOFF_MS * 2 ** this.#attempt++);
    return 100 + Math.random() * bound;
  }

  #hurry() {
    if (this.#timer && !this.#socket && this.#token) this.#connect();
  }

  #listen() {
    clearTimeout(this.#silence);
    const socket = this.#socket;
    this.#silence = setTimeout(() => socket?.close(), SILENCE_MS);
  }
}
