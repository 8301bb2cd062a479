// Manual inspection: images are sent to the service one after the other.
import { api } from "./api.js";
import { guardUnsaved } from "./base.js";
import { Cards, toCard } from "./cards.js";
import { retry } from "./pictures.js";
import { fillResult } from "./result.js";
import { BUSY, RETRY_S, onChosen, onDrop, problemList, readable } from "./sending.js";
import { t } from "./texts.js";

const form = document.getElementById("inspect");
const drop = document.getElementById("drop");
const progress = document.getElementById("progress");
const result = document.getElementById("result");
const complain = problemList();
const cards = new Cards(document.getElementById("inspections"));
const queue = []; // the first entry is being sent
const LATE = [408, 504]; // timeouts: the image may be too large for the network
let working = false;
let timer = null;
let last = null;

function show(answer, name) {
  if (last) {
    cards.add(toCard(last));
    document.getElementById("earlier-title").hidden = false;
  }
  last = answer;
  const address = `/inspections/${answer.inspection_id}`;
  fillResult(result, answer, name);
  result.querySelectorAll('[data-field="link"]').forEach((link) => (link.href = address));
  // A new element: the old one would show the previous part until the new image has loaded.
  const before = result.querySelector('[data-field="picture"]');
  before.removeAttribute("src");
  const picture = before.cloneNode();
  picture.src = `${address}/overlay.jpg`;
  retry(picture);
  before.replaceWith(picture);
}

// Captures the form's fields when a file is added: the form may change before the file is sent.
function toJob(file) {
  const body = new FormData();
  for (const name of ["part_id", "station"]) {
    const text = form.elements[name].value.trim();
    if (text) body.set(name, text);
  }
  body.set("file", file);
  // If an answer is lost, the retry is not inspected twice.
  const key = [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  return { file, body, category: form.elements.category.value, headers: { "Idempotency-Key": key }, late: 0 };
}

// Returns the reason to wait, or an empty text if the image is finished.
async function inspect(one) {
  const { file, body, category, headers } = one;
  if (file.size > Number(form.dataset.maxBytes)) {
    complain(file.name, t("script.inspect.too_large"));
    return "";
  }
  try {
    show(await api(`/v1/models/${encodeURIComponent(category)}/predict`, { method: "POST", headers, body, timeoutMs: 120000 }), file.name);
  } catch (error) {
    if (error.status === 401 || error.type === "another-key") return t("script.inspect.waiting", { n: queue.length });
    const gone = error.status === 0 && !(await readable(file));
    if (BUSY.includes(error.status) && !gone) {
      // After repeated timeouts other images go first.
      one.late = LATE.includes(error.status) || error.type === "late" ? one.late + 1 : 0;
      if (one.late > 1) queue.push(queue.shift());
      timer = setTimeout(work, 1000 * (error.retryAfter ?? RETRY_S));
      return t("script.inspect.later", { why: error.message, n: queue.length });
    }
    complain(file.name, gone ? t("script.inspect.unreadable") : error.message);
  }
  return "";
}

async function work() {
  if (working) return;
  working = true;
  clearTimeout(timer);
  let waits = "";
  while (queue.length && !waits) {
    const [one] = queue;
    progress.textContent = t("script.inspect.working", { name: one.file.name, n: queue.length - 1 });
    waits = await inspect(one);
    if (!waits) queue.shift();
  }
  progress.textContent = waits;
  working = false;
}

function take(files) {
  if (!files.length) return;
  queue.push(...files.map(toJob));
  work();
}

guardUnsaved(() => queue.length > 0);
addEventListener("focus", work); // the user may have logged in in another tab
addEventListener("online", work);
try {
  form.elements.station.value ||= localStorage.getItem("flowgauge.station") || "";
  form.elements.station.addEventListener("change", (event) => localStorage.setItem("flowgauge.station", event.target.value.trim()));
} catch {
  // storage is disabled
}
for (const id of ["files", "camera"]) onChosen(id, take);
onDrop(drop, ({ files }) => take([...files]));
