// Adding images to a product: uploads in small requests, the camera, folders of the server and the history.
import { api } from "./api.js";
import { guardUnsaved } from "./base.js";
import { passed } from "./models.js";
import { hasCamera, openCamera } from "./product_camera.js";
import { arrived } from "./product_grid.js";
import { addKind, path, refresh, take } from "./product.js";
import { BUSY, RETRY_S, onChosen, onDrop, problemList, readable } from "./sending.js";
import { has, number, t } from "./texts.js";

const BATCH = 10; // images in a request, of together
const BATCH_BYTES = 4 << 20; // which take seconds on a slow network: the progress moves
const IMPORTED = 100; // inspections in a request
const UPLOAD_MS = 300000;
const IMAGE = /\.(png|jpe?g|bmp|tiff?|webp)$/i;
const GOOD = /^(good|ok|normal)$/i;
const DEFECTIVE = /^(defect(s|ive)?|bad|ng|nok|ko|anomaly|anomalous|abnormal)$/i;
const MASKS = /(^|\/)(ground_truth|masks?)\//i;
const byId = (id) => document.getElementById(id);
const field = byId("drop");
const kindField = byId("add-kind");
const progress = byId("progress");
const share = byId("progress-share");
const complain = problemList();
const queue = []; // the first entries are being sent
let counts = {};
let working = false;
let timer = null;

function label() {
  return field.querySelector('input[name="label"]:checked').value;
}

function begin() {
  if (working || queue.length) return;
  counts = { total: 0, done: 0, stored: 0, duplicate: 0, refused: 0 };
}

function tally() {
  share.value = counts.total ? counts.done / counts.total : 0;
  return t("script.teach.add.progress", { done: number(counts.done, 0), total: number(counts.total, 0) });
}

function summary() {
  const said = [t("script.teach.add.stored", { n: number(counts.stored, 0) })];
  if (counts.duplicate) said.push(t("script.teach.add.duplicate", { n: number(counts.duplicate, 0) }));
  if (counts.refused) said.push(t("script.teach.add.refused", { n: number(counts.refused, 0) }));
  return said.join(" ");
}

function refuse(name, text, detail = "") {
  counts.refused += 1;
  counts.done += 1;
  complain(name, text, detail);
}

// Takes over the answer of an upload or import.
function receive({ items, product }, wanted = null) {
  const added = [];
  for (const { filename, index, image, status, problem } of items) {
    const name = filename ?? image?.name ?? `${index + 1}`;
    if (status === "stored") added.push(image);
    if (!image) {
      const known = has(`script.teach.refused.${status}`);
      refuse(name, known ? t(`script.teach.refused.${status}`) : problem.detail, problem.detail);
      continue;
    }
    counts[status] += 1;
    counts.done += 1;
    // The label of an image that was there before stays.
    if (status === "duplicate" && wanted && image.label !== wanted) complain(name, t("script.teach.add.other_label", { label: t(`verdict.${image.label}`) }));
  }
  take(product);
  arrived(added);
}

// The next images of the queue that fit into one request.
function nextBatch() {
  const [first] = queue;
  const batch = [];
  let bytes = 0;
  for (const one of queue) {
    bytes += one.file.size;
    const same = one.label === first.label && one.kind === first.kind && one.source === first.source;
    if (batch.length && (!same || first.alone || one.alone || bytes > BATCH_BYTES || batch.length === BATCH)) break;
    batch.push(one);
  }
  return batch;
}

async function send(batch) {
  const [{ label, kind, source }] = batch;
  if (kind) await addKind(kind);
  const query = new URLSearchParams({ label, source, ...(kind && { kind }) });
  const body = new FormData();
  for (const { file } of batch) body.append("file", file, file.name);
  return api(`${path}/images?${query}`, { method: "POST", body, timeoutMs: UPLOAD_MS });
}

// Returns the reason to wait, or an empty text if the batch is finished.
async function upload(batch) {
  try {
    receive(await send(batch), batch[0].label);
  } catch (error) {
    if (error.status === undefined) throw error;
    if (error.status === 401 || error.type === "another-key") return t("script.inspect.waiting", { n: queue.length });
    const gone = error.status === 0 ? await unreadable(batch) : [];
    for (const one of gone) {
      queue.splice(queue.indexOf(one), 1);
      refuse(one.file.name, t("script.inspect.unreadable"));
    }
    if (gone.length) return "";
    if (BUSY.includes(error.status)) {
      timer = setTimeout(work, 1000 * (error.retryAfter ?? RETRY_S));
      return t("script.inspect.later", { why: error.message, n: queue.length });
    }
    if ([403, 404].includes(error.status)) batch = [...queue]; // none of them can be sent
    else if (batch.length > 1) {
      batch.forEach((one) => (one.alone = true)); // one after the other, to see which are refused
      return "";
    }
    batch.forEach((one) => refuse(one.file.name, error.message));
  }
  queue.splice(0, batch.length);
  return "";
}

async function unreadable(batch) {
  const able = await Promise.all(batch.map((one) => readable(one.file)));
  return batch.filter((_, index) => !able[index]);
}

async function work() {
  if (working) return;
  working = true;
  clearTimeout(timer);
  let waits = "";
  share.hidden = false;
  while (queue.length && !waits) {
    progress.textContent = tally();
    waits = await upload(nextBatch());
  }
  progress.textContent = waits || summary();
  share.hidden = !waits;
  working = false;
  if (!waits) refresh();
}

// The label of the form, which may change before an image is sent.
function chosenLabel() {
  return { label: label(), kind: label() === "defect" ? kindField.value.trim() : "" };
}

// `labelOf` returns the label and kind of a file.
function add(files, source = "upload", labelOf = chosenLabel) {
  if (!files.length) return;
  begin();
  counts.total += files.length;
  for (const file of files) {
    if (file.size > passed.maxBytes) refuse(file.name, t("script.inspect.too_large"));
    else queue.push({ file, source, ...labelOf(file) });
  }
  work();
}

// Adds the images below a folder, given as [path, file]; other files are ignored. Names of folders are labels, as in
// training data: images in "good" are good, and images in a folder beside it show that kind of defect.
function addFolder(found) {
  const places = new Map(found.filter(([path]) => IMAGE.test(path) && !MASKS.test(path)).map(([path, file]) => [file, path.split("/").slice(0, -1)]));
  const parents = new Set([...places.values()].filter((names) => GOOD.test(names.at(-1))).map((names) => names.slice(0, -1).join("/")));
  add([...places.keys()], "upload", (file) => {
    const names = places.get(file);
    if (GOOD.test(names.at(-1))) return { label: "good", kind: "" };
    if (DEFECTIVE.test(names.at(-1))) return { label: "defect", kind: "" };
    return parents.has(names.slice(0, -1).join("/")) ? { label: "defect", kind: names.at(-1) } : chosenLabel();
  });
}

// The files below a dropped folder, as [path, file].
async function readFolder(folder, path) {
  const reader = folder.createReader();
  const found = [];
  for (;;) {
    const entries = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
    if (!entries.length) return found;
    for (const entry of entries) {
      const place = `${path}/${entry.name}`;
      if (entry.isDirectory) found.push(...(await readFolder(entry, place)));
      else found.push([place, await new Promise((resolve, reject) => entry.file(resolve, reject))]);
    }
  }
}

// Entries can be read only while the event is handled.
async function takeDropped(data) {
  const entries = [...data.items].map((item) => item.webkitGetAsEntry?.() ?? null);
  const folders = entries.filter((entry) => entry?.isDirectory);
  const names = new Set(folders.map((folder) => folder.name));
  const files = [...data.files].filter((file) => !names.has(file.name));
  add(files);
  for (const folder of folders) {
    try {
      addFolder(await readFolder(folder, folder.name));
    } catch {
      complain(folder.name, t("script.inspect.unreadable"));
    }
  }
}

// Imports page by page; the server reads the images. `pageOf` gives the body of a page, and the cursor of the next.
async function bring(pageOf, button, nothing) {
  begin();
  let found = 0;
  button.disabled = true;
  progress.textContent = t("script.teach.add.importing");
  try {
    let cursor = null;
    do {
      const { body, next } = await pageOf(cursor);
      const answer = body && (await api(`${path}/images:import`, { method: "POST", body, timeoutMs: UPLOAD_MS }));
      found += answer?.items.length ?? 0;
      counts.total += answer?.items.length ?? 0;
      if (answer) receive(answer);
      cursor = next ?? answer?.next_cursor;
      progress.textContent = found || cursor ? summary() : t(nothing);
    } while (cursor);
  } catch (error) {
    if (error.status === undefined) throw error;
    progress.textContent = error.message;
  }
  button.disabled = false;
  refresh();
}

guardUnsaved(() => queue.length > 0);
addEventListener("focus", work); // the user may have logged in in another tab
addEventListener("online", work);
onDrop(field, takeDropped);
for (const id of ["files", "photo"]) onChosen(id, (files) => add(files));
onChosen("folder", (files) => addFolder(files.map((file) => [file.webkitRelativePath, file])));
field.querySelectorAll('input[name="label"]').forEach((choice) =>
  choice.addEventListener("change", () => (byId("add-kind-field").hidden = label() === "good")),
);
// Without HTTPS a phone's own camera app takes photographs, one at a time.
byId("photo").closest("label").hidden = hasCamera;
byId("camera-open").hidden = !hasCamera && matchMedia("(pointer: coarse)").matches;
byId("camera-open").addEventListener("click", () => openCamera((file) => add([file], "camera")));
byId("history-form").addEventListener("submit", (event) => {
  const { verdict, station, from } = event.target.elements;
  const search = { category: passed.category, verdict: verdict.value, limit: IMPORTED };
  if (station.value.trim()) search.station = station.value.trim();
  if (from.value) search.from = new Date(`${from.value}T00:00`).toISOString(); // in the browser's time zone
  const pageOf = async (cursor) => {
    const { inspections, next_cursor: next } = await api(`/v1/inspections?${new URLSearchParams({ ...search, ...(cursor && { cursor }) })}`);
    return { body: inspections.length ? { inspections: inspections.map((one) => one.inspection_id) } : null, next };
  };
  bring(pageOf, event.submitter ?? event.target.querySelector("button"), "script.teach.add.no_inspections");
});
byId("server-form")?.addEventListener("submit", (event) => {
  const { folder, label } = event.target.elements;
  const body = { folder: folder.value.trim(), ...(label.value && { label: label.value }) };
  bring((cursor) => ({ body: { ...body, ...(cursor && { cursor }) } }), event.submitter ?? event.target.querySelector("button"), "script.teach.add.no_files");
});
