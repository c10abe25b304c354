// Commands: those of the page and what became of them, the form that sends one, and their list.

import { $, hint, keep, make, now, page, patch, say, set, stored } from "./page.js";

const COMMANDS_MAX = 20; // of one device
const COMMANDS_ALL_MAX = 200; // of all devices together
const UNANSWERED_MAX = 8; // commands of which it is not known whether the node has taken them
const LATEST_COMMANDS = "unhidra.commands";
const UNANSWERED = "unhidra.unanswered";
const LOOKS_ONLY = "This token may look and not command.";
const STEPS = ["accepted", "sent", "delivered"];

const commands = new Map();
// What this tab showed before it was reloaded or began a new session, and has not asked for since.
let toAsk = stored(LATEST_COMMANDS);
// The ids of what was sent from this tab.
const own = new Set(toAsk.filter(({ own }) => own).map(({ command }) => command));
// What was sent and not answered: { command, device, name, text }. Kept before it is sent, so that it outlives a reload.
let unanswered = stored(UNANSWERED);
let sending = false;

export function follow(command) {
  const { command: id, name, state } = command;
  const known = commands.get(id);
  if (known && older(command, known)) return;
  commands.set(id, command);
  commands.delete(leastWanted(command.device));
  toAsk = toAsk.filter(({ command }) => command !== id);
  if (known && known.state !== state) say(`${name}: ${state}`);
  keep(LATEST_COMMANDS, latest());
  page.dirty = true;
}

const over = ({ state }) => !STEPS.includes(state);

// Whether `told` was true before `known`: an answer is read from the store, and may cross what is told of a change.
function older(told, known) {
  if (over(told) !== over(known)) return over(known);
  const passed = ({ times, attempts, late }) => [Object.keys(times ?? {}).length, attempts ?? 0, late?.count ?? 0];
  const held = passed(known);
  return passed(told).some((count, at) => count < held[at]);
}

// What goes for a new one: of the device's where it has many, else of all. What others have sent before what was sent
// here, whose end somebody waits for, and of each what is over before what is open.
function leastWanted(device) {
  const rank = (command) => (own.has(command.command) ? 2 : 0) + (over(command) ? 0 : 1);
  const all = [...commands.values()];
  const its = all.filter((command) => command.device === device);
  const among = its.length > COMMANDS_MAX ? its : all.length > COMMANDS_ALL_MAX ? all : [];
  return among.sort((a, b) => rank(a) - rank(b) || a.created_at - b.created_at)[0]?.command;
}

// What is asked for after a reload: those sent here are kept longest.
function latest() {
  const all = [...toAsk, ...commands.values()].map(({ command, device }) => ({ command, device, own: own.has(command) }));
  return all.sort((a, b) => a.own - b.own).slice(-2 * COMMANDS_MAX);
}

// What is said of commands from now on is of another session. They are asked for anew.
export function forgetCommands() {
  toAsk = latest();
  commands.clear();
}

// Asks what became of commands while nobody here was told. Gives the refusal after which it is worth asking again.
export async function recall(link) {
  let left = null;
  const asked = async (ask, refused) => {
    try {
      await ask();
    } catch (error) {
      if (!error.code) throw error;
      if (error.code === "unavailable") left = error;
      else refused();
    }
  };
  for (const lost of [...unanswered]) {
    if (left) break;
    await asked(async () => (await taken(link, lost)) && hint(`${lost.name} was taken, though its answer was lost.`), () => {});
  }
  for (const { command, device } of [...toAsk, ...[...commands.values()].filter((command) => !over(command))]) {
    if (left) break;
    const again = async () => follow((await link.ask({ type: "command", device, command })).command);
    await asked(again, () => (toAsk = toAsk.filter((asked) => asked.command !== command)));
  }
  return left;
}

// Whether the node has a command whose answer was lost. From then on the same text is another command.
async function taken(link, lost) {
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

// The form sends through `link`.
export function sendsWith(link) {
  $("command").addEventListener("submit", async (event) => {
    event.preventDefault();
    const device = page.selected;
    const name = $("command-name").value.trim();
    const text = $("command-body").value;
    if (!device || !name || sending) return;
    sending = true;
    $("command-send").disabled = true;
    hint("");
    let lost = unanswered.find((lost) => lost.device === device && lost.name === name && lost.text === text);
    const before = lost !== undefined;
    try {
      if (lost && (await taken(link, lost))) {
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
      // `unsent` never left the page; but the same may have been sent before.
      const refused = error.unsent ? !before : error.code && error.code !== "unavailable";
      if (refused) answered(lost.command);
      const unsure = `It is not known whether ${name} was taken. Send the same again, unchanged: it is done once.`;
      hint(refused ? `${name} was not sent: ${error.message}` : `${error.message} ${unsure}`);
    }
    sending = false;
    page.dirty = true;
  });
}

export function renderCommands() {
  const mine = [...commands.values()].filter(({ device }) => device === page.selected).sort((a, b) => b.created_at - a.created_at);
  patch($("commands"), mine, ({ command }) => command, makeCommand, (node, command) => {
    const { state } = command;
    node.dataset.state = state;
    set(node.parts.state, state);
    set(node.parts.where, [new Date(command.created_at).toLocaleTimeString([], { hour12: false }), command.command.slice(0, 8), noted(command)].filter(Boolean).join(" · "));
    const reached = STEPS.indexOf(state);
    node.parts.steps.forEach((step, at) => step.classList.toggle("past", reached < 0 ? true : at <= reached));
  });
  $("commands-empty").hidden = mine.length > 0;
  const may = page.welcome?.may_command;
  $("command-send").disabled = sending || !may || !page.selected;
  const hinted = $("command-hint").textContent === LOOKS_ONLY;
  if (page.welcome && hinted !== !may) set($("command-hint"), may ? "" : LOOKS_ONLY);
}

function noted({ state, times, cause, late }) {
  if (late) return `the device said ${late.status} after the end`;
  if (cause) return cause;
  if (!page.welcome && !over({ state })) return "when the connection was lost";
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
