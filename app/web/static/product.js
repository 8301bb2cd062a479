// A product's page: what the product can do now, what comes next, its settings and versions.
import { api } from "./api.js";
import { announce, showOffline } from "./base.js";
import { confirmedReason } from "./confirm.js";
import { activate, complain, home, passed } from "./models.js";
import { localTimes, number, percent, t } from "./texts.js";

export const path = `/v1/products/${encodeURIComponent(passed.category)}`;
const BUSY_MS = 1500; // while something runs or is about to begin
const IDLE_MS = 10000;
const ACTIVATION_MS = 300000;
const byId = (id) => document.getElementById(id);
const listeners = [];
let turn = 0;
let timer = null;
let listed = null; // the active version and the number of versions that the list shows
export let product = null;
export let serving = null; // details of the active version

// `call` gets the product now and after each change.
export function onProduct(call) {
  listeners.push(call);
  if (product) call(product);
}

// Takes a newer state of the product. Answers about images lack what is running; they count down meanwhile.
export function take(now) {
  const { images, teaching: known } = product ?? {};
  const added = known ? now.images.good - images.good : 0;
  const left = (count) => Math.max(0, count - added);
  const counted = known && { ...known, needed: left(known.needed), missing_for_target: left(known.missing_for_target) };
  product = { ...now, teaching: now.teaching ?? counted };
  listeners.forEach((call) => call(product));
}

export async function refresh() {
  clearTimeout(timer);
  if (document.hidden) return;
  const mine = ++turn;
  try {
    const now = await api(path);
    if (mine !== turn) return;
    showOffline("product", false);
    await readVersions(now);
    if (mine !== turn) return;
    take(now);
  } catch (error) {
    if (error.status === undefined) throw error;
    if (mine !== turn) return;
    if (error.status === 0) showOffline("product", true);
    else if (error.status === 404) return complain(byId("now-error"), error);
  }
  const { next, needed, jobs } = product?.teaching ?? {};
  timer = setTimeout(refresh, jobs?.length || (next && needed === 0) ? BUSY_MS : IDLE_MS);
}

// Changes the settings of the product as they are now.
export async function change(settings) {
  const now = await api(path);
  const body = typeof settings === "function" ? settings(now) : settings;
  take(await api(path, { method: "PATCH", headers: { "If-Match": `"${now.revision}"` }, body }));
}

// The product's kinds of defect are those that were ever used.
export async function addKind(kind) {
  if (product.kinds.includes(kind)) return;
  await change((now) => ({ kinds: [...new Set([...now.kinds, kind])] }));
}

export async function startJob(kind, settings = {}) {
  byId("now-error").hidden = true;
  try {
    await api("/v1/jobs", { method: "POST", body: { kind, product: passed.category, settings } });
    announce(t("script.teach.started"));
  } catch (error) {
    complain(byId("now-error"), error);
  }
  refresh();
}

function kindOf(details) {
  if (details.starter) return "starter";
  return details.learned ? "learned" : "trained";
}

// A starter is fitted to its calibration images, too.
function describe(details) {
  const { n_fit: fitted, n_calibration: held } = details.data;
  return t(`script.teach.version.${kindOf(details)}`, { n: number(details.starter ? fitted : fitted + held, 0) });
}

async function readVersions(now) {
  const key = `${now.active} ${now.versions.length}`;
  if (key === listed || !now.versions.length) return;
  const { versions } = await api(home);
  listed = key;
  serving = versions.find((one) => one.active)?.details ?? null;
  byId("version-list").replaceChildren(...versions.reverse().map((one) => versionItem(one, now)));
  localTimes(byId("version-list"));
  byId("versions").hidden = false;
}

function make(tag, text = "", fields = {}) {
  return Object.assign(document.createElement(tag), { textContent: text }, fields);
}

function versionItem({ version, active, details, trouble }, now) {
  const item = make("li");
  const time = make("time");
  item.append(make("a", version, { href: `/models/${encodeURIComponent(passed.category)}/versions/${encodeURIComponent(version)}` }), " ");
  if (active) item.append(make("span", t("script.teach.serves"), { className: "tag" }), " ");
  else {
    if (now.active && passed.teaches) {
      const button = make("button", t("script.teach.compare"), { type: "button" });
      button.addEventListener("click", () => startJob("compare", { version }));
      item.append(button, " ");
    }
    if (passed.activates) {
      const button = make("button", t("script.models.activate.yes"), { type: "button" });
      button.addEventListener("click", () => activate(version, button, refresh));
      item.append(button, " ");
    }
  }
  if (details) {
    time.dateTime = details.created;
    item.append(time, ` · ${describe(details)}`);
  } else item.append(trouble ?? "");
  return item;
}

function nextStep({ teaching, takeover, active, images }) {
  if (!teaching || teaching.jobs.some((job) => ["starter", "train"].includes(job.kind))) return "";
  if (teaching.next) return t(`script.teach.next.${teaching.next}${teaching.needed ? "" : ".soon"}`, { n: number(images.good + teaching.needed, 0) });
  if (takeover === "manual") return t("script.teach.next.manual");
  return active || !images.good ? "" : t("script.teach.next.none");
}

function show({ active, images, teaching, takeover }) {
  const set = (id, text) => {
    const place = byId(id);
    place.hidden = !text;
    if (place.textContent !== text) place.textContent = text; // every write is read out
  };
  set("now-state", active ? (serving ? describe(serving) : active) : t(images.good ? "script.teach.state.collecting" : "script.teach.state.empty", { n: number(images.good, 0) }));
  const { promised_fpr: promised, target_fpr: target, missing_for_target: missing } = teaching ?? {};
  set("now-promise", active && promised ? t(serving?.starter ? "script.teach.expected" : "script.teach.promise", { rate: percent(promised) }) : "");
  set("now-missing", active && missing ? t("script.teach.missing", { n: number(missing, 0), rate: percent(target) }) : "");
  byId("now-share").hidden = !active || !missing;
  if (missing) byId("now-share").value = images.good / (images.good + missing);
  set("now-next", nextStep({ teaching, takeover, active, images }));
  if (!passed.teaches) return;
  byId("takeover").disabled = false;
  if (document.activeElement !== byId("takeover")) byId("takeover").value = takeover;
  const runs = (kind) => teaching?.jobs.some((job) => job.kind === kind);
  const enough = images.good >= passed.minGood;
  const useful = {
    starter: enough && !active && (takeover === "manual" || teaching?.last?.state === "failed"),
    train: enough,
    evaluate: active && images.defect,
    check: images.good + images.defect,
  };
  for (const button of document.querySelectorAll("[data-start]")) {
    button.hidden = !useful[button.dataset.start];
    button.disabled = !teaching || runs(button.dataset.start);
  }
}

for (const button of document.querySelectorAll("[data-start]")) button.addEventListener("click", () => startJob(button.dataset.start));

byId("takeover")?.addEventListener("change", async (event) => {
  try {
    await change({ takeover: event.target.value });
    announce(t("script.teach.saved"));
  } catch (error) {
    complain(byId("now-error"), error);
  }
  refresh();
});

byId("delete")?.addEventListener("click", async ({ currentTarget: button }) => {
  const { good, defect, excluded } = product.images;
  const text = t("script.teach.delete", { n: number(good + defect + excluded, 0) });
  const reason = await confirmedReason(button.dataset.title, text, button.textContent);
  if (!reason) return;
  const query = new URLSearchParams({ reason });
  try {
    await api(`${path}?${query}`, { method: "DELETE", headers: { "If-Match": `"${product.revision}"` }, timeoutMs: ACTIVATION_MS });
    location.assign("/products");
  } catch (error) {
    complain(byId("now-error"), error);
  }
});

onProduct(show);
document.addEventListener("visibilitychange", refresh);
refresh();
