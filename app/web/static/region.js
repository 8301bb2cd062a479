// A category's region of interest: the image to draw on, the station, saving and removing.
import { api } from "./api.js";
import { announce, guardUnsaved } from "./base.js";
import { confirmed } from "./confirm.js";
import { complain, home, passed } from "./models.js";
import { Polygons } from "./polygons.js";
import { Stage } from "./region_stage.js";
import { percent, t } from "./texts.js";

const byId = (name) => document.getElementById(`region-${name}`);
const form = byId("form");
const station = byId("station");
const wrong = byId("error");
const said = (key, values) => announce(t(key, values));
const stage = new Stage(byId("stage"), { changed: stroke, said, writable: form !== null });
let picture = null;
let turn = 0;
let strokes = 0;
let settled = 0; // number of strokes that were saved or discarded
let saved = null; // the region in force, with its ETag; null if none is set
let changing = false; // a change is being sent: a second one would conflict with it

function chosenStation() {
  return station.value === "*" ? byId("name").value.trim() : station.value;
}

function query(extra = {}) {
  const given = { ...(chosenStation() ? { station: chosenStation() } : {}), ...extra };
  return new URLSearchParams(given).toString();
}

function stroke() {
  strokes += 1;
  refresh();
}

function refresh() {
  const polygons = stage.polygons;
  if (!polygons) return;
  const items = polygons.done.map((one, i) => {
    const item = document.createElement("li");
    item.append(t("script.region.polygon", { n: one.length }));
    if (form) {
      const remove = document.createElement("button");
      remove.type = "button";
      remove.textContent = t("script.region.take_out");
      remove.setAttribute("aria-label", t("script.region.take_out.n", { n: i + 1 }));
      remove.addEventListener("click", () => {
        polygons.done.splice(i, 1);
        stage.held = null;
        stage.update();
        byId("stage").focus();
      });
      item.append(" ", remove);
    }
    return item;
  });
  byId("list").replaceChildren(...items);
  byId("none").hidden = items.length > 0;
  if (!form) return;
  byId("finish").disabled = !polygons.canFinish();
  byId("undo").disabled = byId("empty").disabled = polygons.empty;
  const same = !polygons.open.length && JSON.stringify(polygons.done) === unchanged();
  byId("save").disabled = changing || same || (polygons.open.length ? !polygons.canFinish() : !polygons.done.length);
  byId("remove").disabled = changing || saved === null;
}

function unchanged() {
  return saved === null ? "" : JSON.stringify(Polygons.from(saved.answer, stage.polygons.width, stage.polygons.height).done);
}

// The size of the whole image may be larger than that of its picture.
async function readImage(src, size = null, good = null) {
  const bitmap = new Image();
  bitmap.src = src;
  await bitmap.decode();
  const { width, height } = size ?? { width: bitmap.naturalWidth, height: bitmap.naturalHeight };
  return { bitmap, width, height, good };
}

async function inspected(extra, good = null) {
  const filter = { category: passed.category, limit: "20", ...(chosenStation() ? { station: chosenStation() } : {}), ...extra };
  const page = await api(`/v1/inspections?${new URLSearchParams(filter)}`);
  const one = page.inspections.find((row) => row.has_pictures);
  const { image } = await api(`/v1/inspections/${one.inspection_id}`);
  return readImage(`/inspections/${one.inspection_id}/picture.jpg`, image, good);
}

async function ofDataset() {
  const page = await api(`/v1/products/${encodeURIComponent(passed.category)}/images?label=good&limit=1`);
  return readImage(page.images[0].links.image, page.images[0], "dataset");
}

// An image of a good part to draw on, of the station if there is one; null without any.
async function findImage() {
  const sources = [() => inspected({ verdict: "good" }, "reviewed"), () => inspected({ decision: "PASS" }, "passed")];
  if (passed.isProduct && !chosenStation()) sources.unshift(ofDataset);
  if (passed.goodImage && !chosenStation()) sources.push(() => readImage(passed.goodImage, null, "calibration"));
  for (const source of [...sources, () => inspected({})]) {
    const found = await source().catch(() => null); // there is none, or the key may not see it
    if (found) return found;
  }
  return null;
}

function unsaved() {
  return strokes !== settled && !stage.polygons.empty;
}

// Only the last of several loads counts. An unsaved drawing stays when another station is chosen.
async function load() {
  const mine = (turn += 1);
  wrong.hidden = true;
  byId("stage").setAttribute("aria-busy", "true");
  let found = null;
  try {
    if (station.value !== "*" || chosenStation()) found = await api(`${home}/region?${query()}`, { etag: true });
  } catch (error) {
    if (error.status !== 404) complain(wrong, error);
  }
  if (mine === turn) showShare(found?.answer);
  const last = picture?.uploaded ? null : await findImage();
  if (mine !== turn) return;
  saved = found;
  byId("stage").removeAttribute("aria-busy");
  if (!unsaved()) {
    if (!picture?.uploaded) picture = last; // null: another station's image would not show what counts here
    return show();
  }
  if (!picture.uploaded) byId("status").textContent += ` ${t("script.region.kept")}`;
  return refresh();
}

function showShare(region) {
  byId("status").textContent = region ? t("script.region.set", { share: percent(region.share) }) : t("script.region.unset");
}

function show() {
  const region = saved?.answer;
  if (!picture) {
    const { width, height } = region?.image ?? { width: 640, height: 480 };
    const blank = document.createElement("canvas");
    [blank.width, blank.height] = [width, height];
    picture = { bitmap: blank, width, height, blank: true };
  }
  const { bitmap, width, height } = picture;
  stage.held = stage.cursor = null;
  if (unsaved()) {
    stage.show(bitmap, stage.polygons.resized(width, height));
  } else {
    settled = strokes;
    stage.show(bitmap, region ? Polygons.from(region, width, height) : new Polygons(width, height));
  }
  showShare(region);
  if (picture.good) byId("status").textContent += ` ${t("script.region.good", { what: t(`script.region.good.${picture.good}`) })}`;
  if (picture.blank) byId("status").textContent += ` ${t("script.region.no_picture")}`;
  byId("stage").classList.toggle("blank", Boolean(picture.blank));
  refresh();
}

byId("file").addEventListener("change", async (event) => {
  const file = event.target.files[0];
  if (!file) return;
  try {
    if (file.size > passed.maxBytes) throw new Error(t("script.region.too_large"));
    const bitmap = await createImageBitmap(file);
    picture = { bitmap, width: bitmap.width, height: bitmap.height, uploaded: true };
    show();
  } catch {
    complain(wrong, new Error(t("script.region.unreadable", { name: file.name })));
  }
});

// True if a field is filled in; otherwise the browser marks it.
function filled(name) {
  const field = byId(name);
  field.value = field.value.trim();
  return field.reportValidity();
}

// Without a name, another station's region would apply to all stations.
function complete() {
  return (station.value !== "*" || filled("name")) && filled("reason");
}

// Marks a station that has a region, and adds it to the list if it is new.
function mark(name, set) {
  let option = [...station.options].find((one) => one.value === name);
  if (!option) station.add((option = new Option(name, name)), station.options.length - 1);
  option.text = option.text.replace(/ ●$/, "") + (set ? " ●" : "");
}

async function change(method, text) {
  if (!complete()) return;
  changing = true;
  refresh();
  wrong.hidden = true;
  const name = chosenStation();
  const reason = byId("reason").value;
  const headers = saved ? { "If-Match": saved.etag } : {};
  const body = method === "PUT" ? stage.polygons.body() : undefined;
  const sent = strokes;
  try {
    await api(`${home}/region?${query({ reason })}`, { method, headers, body });
    byId("reason").value = "";
    settled = sent;
    mark(name, method === "PUT");
    dispatchEvent(new Event("region-changed"));
    picture = picture.blank ? null : picture;
    await load();
    byId("status").textContent = `${t(text)} ${byId("status").textContent}`;
    announce(t(text));
  } catch (error) {
    // Somebody was faster: the drawing stays, and saving again replaces their region.
    const faster = error.status === 412 || error.status === 428;
    if (faster) saved = await api(`${home}/region?${query()}`, { etag: true }).catch(() => null);
    complain(wrong, faster ? new Error(t("script.region.conflict")) : error);
  } finally {
    changing = false;
    refresh();
  }
}

form?.addEventListener("submit", () => {
  if (stage.polygons.open.length) stage.finish();
  change("PUT", "script.region.saved");
});
byId("remove")?.addEventListener("click", async () => {
  if (!complete()) return;
  const sure = await confirmed(t("script.region.remove"), t("script.region.remove.text"), t("script.region.remove.yes"));
  if (sure) change("DELETE", "script.region.removed");
});
byId("finish")?.addEventListener("click", () => stage.finish());
byId("undo")?.addEventListener("click", () => stage.undo());
byId("whole")?.addEventListener("click", () => {
  stage.polygons.whole();
  stage.update();
});
byId("empty")?.addEventListener("click", () => {
  stage.polygons.clear();
  stage.update();
});
station.addEventListener("change", () => {
  byId("other").hidden = station.value !== "*";
  load();
});
byId("name")?.addEventListener("change", load);
guardUnsaved(unsaved);
load();
