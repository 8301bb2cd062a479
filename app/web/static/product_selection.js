// The selection of thumbnails, by mouse and keys.
import { focusOn, grid, imageOf, option, options } from "./product_grid.js";
import { number, t } from "./texts.js";

const selected = new Set(); // SHA-256 of images
let anchor = null; // the option where a selection with Shift begins

function show() {
  const place = document.getElementById("selected");
  if (place) place.textContent = t("script.teach.selected", { n: number(selected.size, 0) });
  for (const button of document.querySelectorAll("[data-act]")) button.disabled = !selected.size && button.dataset.act !== "all";
}

export function select(shas, on = true) {
  for (const sha of shas) {
    if (on) selected.add(sha);
    else selected.delete(sha);
    option(sha)?.setAttribute("aria-selected", String(on));
  }
  show();
}

export function selectAll() {
  select(options().map((item) => item.dataset.image));
}

export function selectNone() {
  select([...selected], false);
}

function range(from, to) {
  const all = options();
  const [first, last] = [all.indexOf(from), all.indexOf(to)].sort((a, b) => a - b);
  return all.slice(Math.max(first, 0), last + 1).map((item) => item.dataset.image);
}

function press(item, withShift) {
  const sha = item.dataset.image;
  if (withShift && anchor?.isConnected) select(range(anchor, item));
  else {
    select([sha], !selected.has(sha));
    anchor = item;
  }
  focusOn(item);
}

// The selected images, else the one with the focus.
export function targets() {
  const focused = document.activeElement.closest("[data-image]");
  const shas = selected.size ? [...selected] : focused ? [focused.dataset.image] : [];
  return shas.map(imageOf);
}

// The option that an arrow leads to.
function neighbour(item, key) {
  const all = options();
  const columns = all.findIndex((one) => one.offsetTop > all[0].offsetTop);
  const row = columns < 1 ? all.length : columns;
  const step = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: row, ArrowUp: -row }[key];
  if (step !== undefined) return all[all.indexOf(item) + step];
  return { Home: all[0], End: all.at(-1) }[key];
}

// Handles a key on an option. Returns whether it was one of the selection.
export function onSelectionKey(item, event) {
  const next = neighbour(item, event.key);
  if (event.key === " ") press(item, event.shiftKey);
  else if (next) {
    if (event.shiftKey) {
      anchor = anchor?.isConnected && selected.size ? anchor : item;
      select(range(anchor, next));
    }
    focusOn(next);
  } else return false;
  return true;
}

grid.addEventListener("change", () => {
  for (const sha of [...selected]) {
    if (option(sha)) option(sha).setAttribute("aria-selected", "true");
    else selected.delete(sha);
  }
  show();
});
grid.addEventListener("click", (event) => {
  const item = event.target.closest("[data-image]");
  if (item) press(item, event.shiftKey);
});
