// The line's view: the last part at most once a second, and sound once a second.
import assert from "node:assert/strict";
import { mock, test } from "node:test";
import { Element, byId, pass } from "./page.mjs";

globalThis.AudioContext = class {
  currentTime = 0;
  started = (globalThis.started = []);
  resume() {}
  createOscillator() {
    const ramp = { setValueAtTime() {} };
    return { frequency: ramp, connect: (next) => next, start: () => globalThis.started.push(Date.now()), stop() {} };
  }
  createGain() {
    return { gain: { setValueAtTime() {}, exponentialRampToValueAtTime() {} }, connect() {} };
  }
};
globalThis.localStorage = { kept: {}, getItem: (name) => localStorage.kept[name] ?? null, setItem: (name, value) => (localStorage.kept[name] = value) };
const { LineView, RejectSound } = await import("./static/line.js");

test("a fast line shows the latest part once a second", () => {
  byId("last").dataset.shown = "";
  const view = new LineView();
  const drawn = [];
  view.draw = function () {
    drawn.push(this.next.id);
    byId("last").dataset.shown = this.next.id;
    this.next = null;
  };
  for (const id of ["1", "2", "3", "0"]) view.show({ id });
  assert.deepEqual(drawn, ["1"]);
  pass(1000);
  assert.deepEqual(drawn, ["1", "3"]);
  pass(5000);
  assert.deepEqual(drawn, ["1", "3"]);
});

test("sound is off until it is switched on, and remembered", () => {
  mock.timers.enable({ apis: ["Date"], now: 5000 });
  const button = new Element();
  const sound = new RejectSound(button);
  sound.play();
  assert.equal(globalThis.started, undefined);
  button.dispatchEvent(new Event("click"));
  for (const wait of [0, 500, 600]) {
    mock.timers.tick(wait);
    sound.play();
  }
  assert.deepEqual(globalThis.started, [5000, 6100]);
  const again = new Element();
  new RejectSound(again);
  assert.equal(again.getAttribute("aria-pressed"), "true");
  mock.timers.reset();
});
