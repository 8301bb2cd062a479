// Pictures that do not come are asked for again.
import assert from "node:assert/strict";
import { test } from "node:test";
import { Element, pass } from "./page.mjs";
import { retry, retryFailed } from "./static/pictures.js";

function image() {
  const made = new Element({ complete: false, asked: 0 });
  made.setAttribute("src", "a.jpg");
  made.setAttribute = function (name, value) {
    if (name === "src") this.asked += 1;
    Element.prototype.setAttribute.call(this, name, value);
  };
  return made;
}

test("a picture that fails once is asked for again and comes", () => {
  const one = image();
  const told = [];
  retry(one, (state) => told.push(state));
  one.dispatchEvent(new Event("error"));
  pass(399);
  assert.equal(one.asked, 0);
  pass(1);
  assert.equal(one.asked, 1);
  one.dispatchEvent(new Event("load"));
  assert.deepEqual([...new Set(told)], ["late", "came"]); // each try listens for itself
});

test("after six tries it has failed, and is asked for when the server is there again", () => {
  const one = image();
  const told = [];
  retry(one, (state) => told.push(state));
  for (let i = 0; i <= 6; i += 1) {
    one.dispatchEvent(new Event("error"));
    pass(400 * 2 ** i);
  }
  assert.equal(one.asked, 6);
  assert.equal(told.at(-1), "failed");
  assert.equal(one.dataset.failed, "");
  retryFailed({ querySelectorAll: () => [one] });
  assert.equal(one.asked, 7);
  assert.equal(one.dataset.failed, undefined);
});

test("a picture that failed before the script ran is asked for again", () => {
  const one = image();
  Object.assign(one, { complete: true, naturalWidth: 0 });
  retry(one);
  pass(400);
  assert.equal(one.asked, 1);
});
