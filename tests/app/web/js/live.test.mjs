// The live feed: silence, refusals, pages in the background.
import assert from "node:assert/strict";
import { beforeEach, test } from "node:test";
import { pass, requests, willAnswer } from "./page.mjs";
import { Live } from "./static/live.js";

const sources = [];
globalThis.EventSource = class extends EventTarget {
  static CLOSED = 2;
  readyState = 1;

  constructor(url) {
    super();
    this.url = url;
    sources.push(this);
  }

  close() {
    this.readyState = EventSource.CLOSED;
  }

  tell(kind, data) {
    this.dispatchEvent(Object.assign(new Event(kind), { data: JSON.stringify(data) }));
  }
};

let heard = [];
const handlers = { inspection: (event) => heard.push(event.inspection_id) };
for (const name of ["connecting", "open", "lost", "closed"]) handlers[name] = () => heard.push(name);

beforeEach(() => {
  document.hidden = false;
  heard = [];
  sources.length = 0;
});

test("events are heard by kind, and each tells that the server is there", () => {
  const live = new Live("?category=tiny", handlers);
  assert.equal(sources[0].url, "/v1/events?category=tiny");
  sources[0].dispatchEvent(new Event("open"));
  pass(39_000);
  sources[0].tell("inspection", { inspection_id: "i" });
  pass(39_000);
  sources[0].tell("position", {});
  pass(39_000);
  assert.deepEqual(heard, ["closed", "connecting", "open", "i"]);
  live.close();
});

test("a connection that brings nothing for 40 seconds is lost and made again", () => {
  const live = new Live("", handlers);
  pass(40_000);
  assert.deepEqual(heard.slice(-3), ["lost", "closed", "connecting"]);
  assert.equal(sources.length, 2);
  assert.equal(sources[0].readyState, EventSource.CLOSED);
  live.close();
});

test("a server that refuses is asked again after three seconds, and whether the session has ended", () => {
  willAnswer([200, {}]);
  const live = new Live("", handlers);
  sources[0].close();
  sources[0].dispatchEvent(new Event("error"));
  assert.equal(requests[0].path, "/v1/session");
  pass(2_999);
  assert.equal(sources.length, 1);
  pass(1);
  assert.equal(sources.length, 2);
  live.close();
});

test("a page in the background holds no connection", () => {
  const live = new Live("", handlers);
  document.hidden = true;
  document.dispatchEvent(new Event("visibilitychange"));
  assert.equal(sources[0].readyState, EventSource.CLOSED);
  pass(100_000);
  assert.equal(sources.length, 1);
  document.hidden = false;
  document.dispatchEvent(new Event("visibilitychange"));
  assert.equal(sources.at(-1).readyState, 1);
  live.close();
});
