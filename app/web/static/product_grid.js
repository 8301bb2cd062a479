// The thumbnails of a product's images, by label, with the findings of the data check. After each change of what
// is shown, the grid has the event "change".
import { api } from "./api.js";
import { complain } from "./models.js";
import { retry } from "./pictures.js";
import { path } from "./product.js";
import { has, t } from "./texts.js";

const PAGE = 100;
const TABS = {
  all: [{}, () => true],
  good: [{ label: "good", excluded: false }, (image) => image.label === "good" && !image.excluded],
  defect: [{ label: "defect", excluded: false }, (image) => image.label === "defect" && !image.excluded],
  excluded: [{ excluded: true }, (image) => image.excluded],
  suspicious: [{ finding: "any", excluded: false }, (image) => image.findings.length > 0 && !image.excluded],
};
const byId = (id) => document.getElementById(id);
export const grid = byId("grid");
const more = byId("more");
const images = new Map(); // by SHA-256, those that were seen
let tab = "all";
let cursor = null;
let turn = 0;

export const options = () => [...grid.children];
export const option = (sha) => grid.querySelector(`[data-image="${sha}"]`);
export const imageOf = (sha) => images.get(sha);

function span(className, text, hint = "") {
  const made = document.createElement("span");
  made.className = className;
  made.textContent = text;
  if (hint) made.title = hint;
  return made;
}

async function nameOf(sha) {
  if (!images.has(sha)) images.set(sha, await api(`${path}/images/${sha}`));
  return images.get(sha).name;
}

export function describeFinding(kind, name = "…") {
  return `▲ ${has(`script.teach.finding.${kind}`) ? t(`script.teach.finding.${kind}`, { name }) : kind}`;
}

// The reason in short; the server's full text is its hint.
function badge({ kind, message, others }) {
  const made = span("finding", describeFinding(kind), message);
  if (others.length) nameOf(others[0]).then((name) => (made.textContent = describeFinding(kind, name)), () => {});
  return made;
}

// The state of an image: a name of a style, and its text.
export function stateOf(image) {
  if (image.excluded) return ["excluded", `⊘ ${t("script.teach.excluded")}`];
  return image.label === "good" ? ["good", `✓ ${t("verdict.good")}`] : ["defect", `✕ ${image.kind ?? t("verdict.defect")}`];
}

function fill(item, image) {
  const [state, text] = stateOf(image);
  item.className = state;
  let picture = item.querySelector("img");
  if (!picture) {
    picture = document.createElement("img");
    Object.assign(picture, { alt: "", loading: "lazy", decoding: "async", width: 160, height: 160 });
    picture.src = image.links.thumbnail;
    retry(picture);
  }
  item.replaceChildren(picture, span("name", image.name), span("state", text), ...image.findings.map(badge));
}

function make(image) {
  images.set(image.sha256, image);
  const item = document.createElement("li");
  item.dataset.image = image.sha256;
  item.setAttribute("role", "option");
  item.setAttribute("aria-selected", "false");
  item.tabIndex = -1;
  fill(item, image);
  return item;
}

// Tab leads to one option; arrows to the others.
function changed() {
  if (!grid.querySelector('[tabindex="0"]')) grid.firstElementChild?.setAttribute("tabindex", "0");
  byId("no-images").hidden = grid.children.length > 0;
  grid.dispatchEvent(new Event("change"));
}

export function focusOn(item) {
  if (!item) return;
  grid.querySelector('[tabindex="0"]')?.setAttribute("tabindex", "-1");
  item.tabIndex = 0;
  item.focus();
}

export async function load(next = null) {
  const mine = ++turn;
  const query = new URLSearchParams({ ...TABS[tab][0], limit: PAGE, ...(next && { cursor: next }) });
  try {
    const page = await api(`${path}/images?${query}`);
    if (mine !== turn) return;
    const items = page.images.filter((image) => !next || !option(image.sha256)).map(make);
    if (next) grid.append(...items);
    else grid.replaceChildren(...items);
    cursor = page.next_cursor;
    more.hidden = cursor === null;
    changed();
  } catch (error) {
    if (mine === turn) complain(byId("images-error"), error);
  }
}

export function showTab(name) {
  tab = name;
  return load();
}

// Images that were just added are the newest: they come first.
export function arrived(added) {
  const shown = added.filter((image) => TABS[tab][1](image) && !option(image.sha256));
  grid.prepend(...shown.reverse().map(make));
  changed();
}

// Takes over changed images; those that the tab no longer has leave it.
export function update(newer) {
  for (const image of newer) {
    images.set(image.sha256, image);
    const item = option(image.sha256);
    if (!item) continue;
    if (TABS[tab][1](image)) {
      fill(item, image);
      continue;
    }
    const next = item.nextElementSibling ?? item.previousElementSibling;
    if (document.activeElement === item) focusOn(next);
    else if (item.tabIndex === 0) next?.setAttribute("tabindex", "0");
    item.remove();
  }
  changed();
}

more.addEventListener("click", () => load(cursor));
new IntersectionObserver(([seen]) => seen.isIntersecting && cursor !== null && load(cursor)).observe(more);
