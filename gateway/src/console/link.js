// The connection to the node (gateway/PROTOCOL.md): lets itself in, comes back after a loss from
// where it was, and matches answers to questions.

const SESSION = "unhidra.session";
const BACKOFF_MS = 400;
const BACKOFF_MAX_MS = 15000;
// The node asks after at most 25 s of silence. Twice that without a word is a dead connection.
const SILENCE_MS = 50000;
// WebSocket's own words for what this page has said wrongly: it would say the same again.
const FINAL = [1002, 1007, 1009];

export class Link {
  #socket = null;
  #token = null;
  #questions = new Map();
  #next = 1;
  #attempt = 0;
  #timer = 0;
  #again = null;
  #turn = 0;
  #silence = 0;
  #comeBackAfter = null;
  #lengthMax = Infinity; // of a message to the node, in bytes
  #handlers;

  // `handlers`: open(welcome), frame(frame), state(state, retryMs), refused(reason), entered() where a session begins
  constructor(handlers) {
    this.#handlers = handlers;
    addEventListener("online", () => this.#hurry());
    document.addEventListener("visibilitychange", () => document.hidden || this.#hurry());
    // An address pasted into the tab where the page is open already loads nothing anew.
    addEventListener("hashchange", () => {
      const given = this.#given();
      if (given) this.enter(given, sessionStorage.getItem(SESSION));
    });
  }

  // The token of the address, which then is there no more.
  #given() {
    const given = new URLSearchParams(location.hash.slice(1)).get("token");
    if (given) history.replaceState(null, "", location.pathname + location.search);
    return given;
  }

  // Uses the token of the address, where there is one, else the session of this tab.
  async start() {
    const given = this.#given();
    const kept = sessionStorage.getItem(SESSION);
    if (given) return this.enter(given, kept);
    if (!kept) return this.#handlers.refused(null);
    this.#token = kept;
    this.#connect();
  }

  // Spends a one-time token for a session. `kept` is tried where the token was spent before:
  // somebody has opened the same address again. Whatever else than a refusal answers says nothing
  // of the token, which is good for another try.
  async enter(once, kept = null) {
    const turn = ++this.#turn;
    this.#leave();
    this.#handlers.state("connecting");
    const answer = await exchange(once);
    if (turn !== this.#turn) return; // another token was given meanwhile
    if (answer.token) {
      this.#token = answer.token;
      sessionStorage.setItem(SESSION, answer.token);
      this.#handlers.entered();
    } else if (!answer.refused) {
      return this.#later(this.#backoff(), () => this.enter(once, kept));
    } else if (kept) {
      this.#token = kept;
    } else {
      return this.#handlers.refused(answer.refused);
    }
    this.#connect();
  }

  // Ends what is under way, so that one thing is at a time.
  #leave() {
    clearTimeout(this.#timer);
    clearTimeout(this.#silence);
    this.#timer = 0;
    const socket = this.#socket;
    this.#socket = null;
    socket?.close();
    this.#giveUp();
  }

  #giveUp() {
    for (const { reject } of this.#questions.values()) reject(new Error("The connection to the node was lost."));
    this.#questions.clear();
  }

  #later(wait, again) {
    this.#handlers.state("offline", wait);
    this.#again = again;
    this.#timer = setTimeout(again, wait);
  }

  // Asks, and gives the answer; throws the error frame, or an error where the connection ends. An error that is
  // `unsent` says that nothing went out.
  ask(frame) {
    return new Promise((resolve, reject) => {
      if (this.#socket?.readyState !== WebSocket.OPEN) return reject(unsent("There is no connection to the node."));
      const id = this.#next++;
      const text = JSON.stringify({ ...frame, id });
      // The node would end the connection over it.
      const length = new TextEncoder().encode(text).length;
      if (length > this.#lengthMax) return reject(unsent(`It is too long: ${length} bytes, where ${this.#lengthMax} may be.`));
      this.#questions.set(id, { resolve, reject });
      this.#socket.send(text);
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
      if (this.#socket !== socket) return;
      this.#listen();
      socket.send(JSON.stringify({ type: "authenticate", version: 1, token: this.#token }));
    };
    socket.onmessage = (message) => {
      if (this.#socket !== socket) return;
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
        this.#lengthMax = frame.frame_len_max ?? Infinity;
        if (!frame.devices.length) this.#attempt = 0; // nothing will be caught up with
        this.#handlers.open(frame);
        return;
      // Whoever lets in may still not serve: a store that does not read ends each connection after its welcome.
      case "caught_up":
      case "readings":
        this.#attempt = 0;
        break;
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
    this.#giveUp();
    // 3500 to 3999: coming back with the same token would end the same way.
    if ((event.code >= 3500 && event.code < 4000) || FINAL.includes(event.code)) {
      if (event.reason === "token_refused" || event.reason === "token_expired") {
        sessionStorage.removeItem(SESSION);
        this.#handlers.refused(event.reason === "token_expired" ? "Your session has expired." : "Your session is no longer known to the node.");
      } else {
        this.#handlers.state("offline");
        this.#handlers.frame({ type: "error", code: event.reason, message: `The node ended the connection: ${event.reason || event.code}. Reload the page.` });
      }
      return;
    }
    this.#later(this.#comeBackAfter ?? this.#backoff(), () => this.#connect());
  }

  // Full jitter: anything between nothing and the bound, so that pages do not come back together.
  #backoff() {
    const bound = Math.min(BACKOFF_MAX_MS, BACKOFF_MS * 2 ** this.#attempt++);
    return 100 + Math.random() * bound;
  }

  #hurry() {
    if (!this.#timer) return;
    clearTimeout(this.#timer);
    this.#timer = 0;
    this.#again();
  }

  #listen() {
    clearTimeout(this.#silence);
    const socket = this.#socket;
    this.#silence = setTimeout(() => socket?.close(), SILENCE_MS);
  }
}

function unsent(message) {
  return Object.assign(new Error(message), { unsent: true });
}

// A session for a one-time token: { token } or { refused: why }, or neither where nobody knows.
async function exchange(once) {
  try {
    const answer = await fetch("/v1/session", {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ token: once }),
    });
    const body = await answer.json().catch(() => ({}));
    const busy = answer.status >= 500 || answer.status === 408 || answer.status === 429;
    if (!answer.ok && !busy) return { refused: body.message ?? `The token was refused: status ${answer.status}.` };
    return answer.ok && typeof body.token === "string" ? { token: body.token } : {};
  } catch {
    return {};
  }
}
