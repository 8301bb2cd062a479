// The images of a product: tabs, keys and buttons on thumbnails, and an enlarged view.
import { passed } from "./models.js";
import { onProduct } from "./product.js";
import { grid, imageOf, load, showTab, stateOf } from "./product_grid.js";
import { MARKS } from "./product_marks.js";
import { onSelectionKey, selectAll, selectNone, targets } from "./product_selection.js";
import { tryImage } from "./product_try.js";
import { number } from "./texts.js";

const byId = (id) => document.getElementById(id);
const viewer = byId("viewer");
const tabs = document.querySelectorAll("[data-tab]");
let checked; // time of the data check whose findings are shown

function view(image) {
  byId("viewer-title").textContent = image.name;
  byId("viewer-image").src = byId("viewer-source").href = image.links.image;
  byId("viewer-facts").textContent = `${image.width} × ${image.height} · ${stateOf(image)[1]}`;
  byId("viewer-findings").replaceChildren(
    ...image.findings.map((finding) => {
      const item = document.createElement("li");
      item.textContent = finding.message;
      return item;
    }),
  );
  viewer.showModal();
}

// Of several images that are selected, the first is tried or opened.
const ACTS = { ...MARKS, try: () => tryImage(targets()[0]), open: () => view(targets()[0]), all: selectAll, none: selectNone };
const KEYS = { g: "good", d: "defect", x: "exclude", t: "try", Enter: "open", Escape: "none" };

grid.addEventListener("keydown", (event) => {
  const item = event.target.closest("[data-image]");
  if (!item) return;
  const command = event.ctrlKey || event.metaKey;
  if (command && event.key === "a") selectAll();
  else if (command || event.altKey) return;
  else if (!onSelectionKey(item, event)) {
    const act = KEYS[event.key] ?? KEYS[event.key.toLowerCase()];
    if (!act || (!passed.teaches && act !== "open")) return;
    ACTS[act]();
  }
  event.preventDefault();
});
grid.addEventListener("dblclick", (event) => {
  const item = event.target.closest("[data-image]");
  if (item) view(imageOf(item.dataset.image));
});
for (const button of document.querySelectorAll("[data-act]")) button.addEventListener("click", () => ACTS[button.dataset.act]());
for (const button of tabs) {
  button.addEventListener("click", () => {
    tabs.forEach((one) => one.setAttribute("aria-pressed", String(one === button)));
    byId("findings").hidden = button.dataset.tab !== "suspicious";
    selectNone();
    showTab(button.dataset.tab);
  });
}
byId("viewer-close").addEventListener("click", () => viewer.close());

onProduct((now) => {
  const { good, defect, excluded, findings } = now.images;
  const counts = { all: good + defect + excluded, good, defect, excluded, suspicious: findings };
  byId("image-tools").hidden = counts.all === 0;
  for (const button of tabs) button.querySelector("span").textContent = number(counts[button.dataset.tab], 0);
  byId("kinds").replaceChildren(...now.kinds.map((kind) => Object.assign(document.createElement("option"), { value: kind })));
  if (checked !== undefined && checked === now.checked) return;
  if (checked !== undefined) load();
  checked = now.checked;
});
load();
