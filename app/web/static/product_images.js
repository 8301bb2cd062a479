// The images of a product: thumbnails to select and to mark, with undo, and the findings of the data check.
import { api } from "./api.js";
import { announce } from "./base.js";
import { complain, passed } from "./models.js";
import { retry } from "./pictures.js";
import { addKind, onProduct, path, product, refresh } from "./product.js";
import { tryImage } from "./product_try.js";
import { has, number, t } from "./texts.js";

const PAGE = 100;
const MAX_CHANGES = 500; // in one request
const FILTERS = {
  all: {},
  good: { label: "good", excluded: false },
  defect: { label: "defect", excluded: false },
  excluded: { excluded: true },
  suspicious: { finding: "any", excluded: false },
};
const MATCHES = {
  all: () => true,
  good: (image) => image.label === "good" && !image.excluded,
  defect: (image) => image.label === "defect" && !image.excluded,
  excluded: (image) => image.excluded,
  suspicious: (image) => image.findings.length > 0 && !image.excluded,
};
const byId = (id) => document.getElementById(id);
const grid = byId("grid");
const more = byId("more");
const viewer = byId("viewer");
const images = new Map(); // by SHA-256, those that were shown
const selected = new Set(); // SHA-256 of images
const undone = []; // labels before each change, the latest last
let tab = "all";
let cursor = null;
let turn = 0;
let anchor = null; // the option where a selection with Shift begins
let checked; // time of the data check whose findings are shown

const options = () => [...grid.children];
const option = (sha) => grid.querySelector(`[data-image="${sha}"]`);

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

function describe(kind, name = "…") {
  return `▲ ${has(`script.teach.finding.${kind}`) ? t(`script.teach.finding.${kind}`, { name }) : kind}`;
}

// The reason in short; the server's full text is its hint.
function badge({ kind, message, others }) {
  const made = span("finding", describe(kind), message);
  if (others.length) nameOf(others[0]).then((name) => (made.textContent = describe(kind, name)), () => {});
  return made;
}

function stateOf(image) {
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
  item.setAttribute("aria-selected", String(selected.has(image.sha256)));
  item.tabIndex = -1;
  fill(item, image);
  return item;
}

// Tab leads to one option; arrows to the others.
function keepReachable() {
  if (!grid.querySelector('[tabindex="0"]')) grid.firstElementChild?.setAttribute("tabindex", "0");
  byId("no-images").hidden = grid.children.length > 0;
}

function focusOn(item) {
  if (!item) return;
  grid.querySelector('[tabindex="0"]')?.setAttribute("tabindex", "-1");
  item.tabIndex = 0;
  item.focus();
}

async function load(next = null) {
  const mine = ++turn;
  const query = new URLSearchParams({ ...FILTERS[tab], limit: PAGE, ...(next && { cursor: next }) });
  try {
    const page = await api(`${path}/images?${query}`);
    if (mine !== turn) return;
    const items = page.images.filter((image) => !next || !option(image.sha256)).map(make);
    if (next) grid.append(...items);
    else grid.replaceChildren(...items);
    cursor = page.next_cursor;
    more.hidden = cursor === null;
    keepReachable();
    showSelected();
  } catch (error) {
    if (mine === turn) complain(byId("images-error"), error);
  }
}

// Images that were just added are the newest: they come first.
export function arrived(added) {
  const shown = added.filter((image) => MATCHES[tab](image) && !option(image.sha256));
  grid.prepend(...shown.reverse().map(make));
  keepReachable();
}

function select(shas, on = true) {
  for (const sha of shas) {
    if (on) selected.add(sha);
    else selected.delete(sha);
    option(sha)?.setAttribute("aria-selected", String(on));
  }
  showSelected();
}

function showSelected() {
  const place = byId("selected");
  if (!place) return;
  for (const sha of selected) if (!option(sha)) selected.delete(sha);
  place.textContent = t("script.teach.selected", { n: number(selected.size, 0) });
  byId("undo").disabled = undone.length === 0;
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
function targets() {
  const focused = grid.querySelector('[tabindex="0"]');
  const shas = selected.size ? [...selected] : grid.contains(document.activeElement) && focused ? [focused.dataset.image] : [];
  return shas.map((sha) => images.get(sha));
}

async function apply(changes) {
  const before = [];
  try {
    for (let i = 0; i < changes.length; i += MAX_CHANGES) {
      const answer = await api(`${path}/images`, { method: "PATCH", body: { changes: changes.slice(i, i + MAX_CHANGES) } });
      before.push(...answer.before);
      answer.images.forEach(update);
    }
  } catch (error) {
    complain(byId("images-error"), error);
  }
  keepReachable();
  refresh();
  return before;
}

function update(image) {
  images.set(image.sha256, image);
  const item = option(image.sha256);
  if (!item) return;
  if (MATCHES[tab](image)) return fill(item, image);
  const next = item.nextElementSibling ?? item.previousElementSibling;
  if (item.tabIndex === 0) focusOn(next);
  item.remove();
  selected.delete(image.sha256);
}

async function mark(changes, said) {
  if (!changes.length) return announce(t("script.teach.select_first"));
  byId("images-error").hidden = true;
  const before = await apply(changes);
  if (before.length) undone.push(before);
  select([...selected], false);
  if (before.length) announce(t("script.teach.marked", { n: number(before.length, 0), said }));
}

async function undo() {
  const before = undone.pop();
  if (!before) return;
  const changed = await apply(before);
  await load();
  announce(t("script.teach.undone", { n: number(changed.length, 0) }));
}

const ACTS = {
  good: () => mark(targets().map(({ sha256 }) => ({ image: sha256, label: "good" })), t("verdict.good")),
  async defect() {
    const kind = byId("mark-kind").value.trim();
    const chosen = targets();
    try {
      if (kind && chosen.length) await addKind(kind);
    } catch (error) {
      return complain(byId("images-error"), error);
    }
    return mark(chosen.map(({ sha256 }) => ({ image: sha256, label: "defect", ...(kind && { kind }) })), kind || t("verdict.defect"));
  },
  exclude() {
    const chosen = targets();
    const excluded = !chosen.every((image) => image.excluded);
    return mark(chosen.map(({ sha256 }) => ({ image: sha256, excluded })), t(excluded ? "script.teach.excluded" : "script.teach.included"));
  },
  try() {
    const [image] = targets();
    if (image) tryImage(image);
    else announce(t("script.teach.select_first"));
  },
  open() {
    const [image] = targets();
    if (image) view(image);
    else announce(t("script.teach.select_first"));
  },
  all: () => select(options().map((item) => item.dataset.image)),
  none: () => select([...selected], false),
};
const KEYS = { g: "good", d: "defect", x: "exclude", t: "try", Enter: "open", Escape: "none" };

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

// The option that an arrow leads to.
function neighbour(item, key) {
  const all = options();
  const columns = all.findIndex((one) => one.offsetTop > all[0].offsetTop);
  const row = columns < 1 ? all.length : columns;
  const step = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: row, ArrowUp: -row }[key];
  if (step !== undefined) return all[all.indexOf(item) + step];
  return { Home: all[0], End: all.at(-1) }[key];
}

function onKey(event) {
  const item = event.target.closest("[data-image]");
  if (!item) return;
  if ((event.ctrlKey || event.metaKey) && event.key === "a") ACTS.all();
  else if (event.ctrlKey || event.metaKey || event.altKey) return;
  else if (event.key === " ") press(item, event.shiftKey);
  else if (neighbour(item, event.key)) {
    const next = neighbour(item, event.key);
    if (event.shiftKey) {
      anchor = anchor?.isConnected && selected.size ? anchor : item;
      select(range(anchor, next));
    }
    focusOn(next);
  } else {
    const act = KEYS[event.key] ?? KEYS[event.key.toLowerCase()];
    if (!act || (!passed.teaches && act !== "open")) return;
    ACTS[act]();
  }
  event.preventDefault();
}

// Excludes every image of a finding; of copies the first one stays.
async function excludeAll(kind) {
  const found = [];
  let next = null;
  do {
    const query = new URLSearchParams({ finding: kind, excluded: false, limit: MAX_CHANGES, ...(next && { cursor: next }) });
    const page = await api(`${path}/images?${query}`);
    found.push(...page.images);
    next = page.next_cursor;
  } while (next);
  found.forEach((image) => images.set(image.sha256, image));
  const others = (image) => image.findings.filter((one) => one.kind === kind).flatMap((one) => one.others);
  const leaving = found.filter((image) => !others(image).length || others(image).some((sha) => sha < image.sha256));
  await mark(leaving.map(({ sha256 }) => ({ image: sha256, excluded: true })), t("script.teach.excluded"));
}

async function showFindings() {
  const { counts } = await api(`${path}/check`);
  const items = Object.entries(counts).map(([kind, n]) => {
    const item = document.createElement("li");
    item.append(`${describe(kind)}: ${number(n, 0)} `);
    if (passed.teaches) {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = t("script.teach.exclude_all");
      button.addEventListener("click", () => excludeAll(kind).then(showFindings).catch((error) => complain(byId("images-error"), error)));
      item.append(button);
    }
    return item;
  });
  byId("findings").replaceChildren(...items);
}

grid.addEventListener("click", (event) => {
  const item = event.target.closest("[data-image]");
  if (item) press(item, event.shiftKey);
});
grid.addEventListener("dblclick", (event) => {
  const item = event.target.closest("[data-image]");
  if (item) view(images.get(item.dataset.image));
});
grid.addEventListener("keydown", onKey);
for (const button of document.querySelectorAll("[data-act]")) button.addEventListener("click", () => ACTS[button.dataset.act]());
byId("undo")?.addEventListener("click", undo);
addEventListener("keydown", (event) => {
  const typing = event.target.closest?.("input, textarea, select, dialog");
  if (!(event.ctrlKey || event.metaKey) || event.key !== "z" || typing || !undone.length) return;
  event.preventDefault();
  undo();
});
for (const button of document.querySelectorAll("[data-tab]")) {
  button.addEventListener("click", () => {
    tab = button.dataset.tab;
    document.querySelectorAll("[data-tab]").forEach((one) => one.setAttribute("aria-pressed", String(one === button)));
    byId("findings").hidden = tab !== "suspicious";
    select([...selected], false);
    load();
  });
}
more.addEventListener("click", () => load(cursor));
new IntersectionObserver(([seen]) => seen.isIntersecting && cursor !== null && load(cursor)).observe(more);
byId("viewer-close").addEventListener("click", () => viewer.close());

onProduct((now) => {
  const { good, defect, excluded, findings } = now.images;
  const counts = { all: good + defect + excluded, good, defect, excluded, suspicious: findings };
  for (const button of document.querySelectorAll("[data-tab]")) button.querySelector("span").textContent = number(counts[button.dataset.tab], 0);
  byId("kinds").replaceChildren(...now.kinds.map((kind) => Object.assign(document.createElement("option"), { value: kind })));
  if (checked !== undefined && checked === now.checked) return;
  if (now.checked) showFindings().catch(() => {});
  if (checked !== undefined) load();
  checked = now.checked;
});
load();
