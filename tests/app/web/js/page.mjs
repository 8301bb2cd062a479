// The little of a browser that the page's modules touch: elements by id, a clock that tests move, and fetch.
import { readFileSync } from "node:fs";

export const words = JSON.parse(readFileSync(new URL("./en.json", import.meta.url)));

export class Element extends EventTarget {
  constructor(fields = {}) {
    super();
    Object.assign(this, { textContent: "", hidden: false, dataset: {}, children: [], attributes: new Map() }, fields);
  }

  append(...children) {
    this.children.push(...children);
  }

  insertBefore(child, before) {
    this.children.splice(before ? this.children.indexOf(before) : this.children.length, 0, child);
  }

  querySelector() {
    return this;
  }

  querySelectorAll() {
    return [...this.children];
  }

  getAttribute(name) {
    return this.attributes.get(name) ?? null;
  }

  setAttribute(name, value) {
    this.attributes.set(name, value);
  }

  removeAttribute(name) {
    this.attributes.delete(name);
  }
}

const elements = new Map();
export function byId(id) {
  if (!elements.has(id)) elements.set(id, new Element());
  return elements.get(id);
}

export const metas = { "csrf-token": new Element({ content: "token" }), "key-id": new Element({ content: "mine" }) };
export const visited = [];
byId("texts").textContent = JSON.stringify(words);

class Page extends EventTarget {
  documentElement = new Element({ lang: "en" });
  hidden = false;
  getElementById = byId;
  createElement = () => new Element();
  querySelector = (selector) => metas[/name="([\w-]+)"/.exec(selector)?.[1]] ?? null;
  querySelectorAll = () => [];
}
globalThis.document = new Page();
globalThis.location = { pathname: "/", search: "", assign: (address) => visited.push(address) };
const window = new EventTarget();
globalThis.addEventListener = window.addEventListener.bind(window);
globalThis.SVGElement = class extends Element {};
globalThis.Image = class extends Element {};

// Timers that run only when `pass` says that so many milliseconds have passed.
let now = 0;
let timers = [];
globalThis.setTimeout = (call, delay = 0) => {
  const timer = { at: now + delay, call };
  timers.push(timer);
  return timer;
};
globalThis.clearTimeout = (timer) => (timers = timers.filter((one) => one !== timer));
export function pass(milliseconds) {
  const until = now + milliseconds;
  for (;;) {
    const next = timers.filter((one) => one.at <= until).sort((a, b) => a.at - b.at)[0];
    if (!next) break;
    now = next.at;
    clearTimeout(next);
    next.call();
  }
  now = until;
}

// Answers to come, one after the other: [status, body, headers], or an error where there is no connection.
export const requests = [];
let answers = [];
export function willAnswer(...given) {
  requests.length = 0;
  answers = given;
}
globalThis.fetch = async (path, { method, headers, body }) => {
  requests.push({ path, method, headers, body: typeof body === "string" ? JSON.parse(body) : body });
  const answer = answers.shift();
  if (!answer) throw new TypeError("no connection");
  const [status, given, answered = {}] = answer;
  const text = typeof given === "string" ? given : JSON.stringify(given);
  return new Response(text, { status, headers: answered });
};
