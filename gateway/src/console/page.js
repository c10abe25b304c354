// What the parts of the page share: the device that is looked at, what the node said of itself, and small tools.

export const page = {
  selected: new URLSearchParams(location.search).get("device"),
  welcome: null, // while there is a connection
  skew: 0, // of this clock, to the node's
  dirty: true, // something is to be shown anew
};

export const $ = (id) => document.getElementById(id);
export const now = () => Date.now() + page.skew;

export function notice(text) {
  $("notice").hidden = !text;
  set($("notice"), text ? text[0].toUpperCase() + text.slice(1) : "");
}

export function say(text) {
  $("spoken").textContent = text;
}

export function hint(text) {
  set($("command-hint"), text);
  if (text) say(text);
}

export function span(ms) {
  const s = Math.max(0, Math.round(ms / 1000));
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min`;
  if (s < 86400) return `${Math.floor(s / 3600)} h`;
  return `${Math.floor(s / 86400)} d`;
}

// Makes the children of `parent` those of `items`, in order, touching only what differs.
export function patch(parent, items, key, create, update) {
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

export function make(tag, className, parent) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  parent.append(node);
  return node;
}

export function set(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

export function stored(name) {
  try {
    const list = JSON.parse(sessionStorage.getItem(name));
    return Array.isArray(list) ? list : [];
  } catch {
    return [];
  }
}

// Where the browser keeps no more, it is held in memory alone.
export function keep(name, list) {
  try {
    sessionStorage.setItem(name, JSON.stringify(list));
  } catch {}
}
