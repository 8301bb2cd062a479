// Trying a product: the decision on one image, with its heatmap. Nothing of it is stored.
import { api } from "./api.js";
import { announce } from "./base.js";
import { home } from "./models.js";
import { onProduct, path, product } from "./product.js";
import { fillResult } from "./result.js";
import { BUSY, RETRY_S, onChosen } from "./sending.js";
import { t } from "./texts.js";

const byId = (id) => document.getElementById(id);
const section = byId("try");
const result = byId("result");
const PREDICT_MS = 120000;
const TRIES = 12;
let turn = 0;
let active; // the version that the page knew before; undefined at first
let last = null; // the image of the product that was tried last

function wait(seconds) {
  return new Promise((resolve) => setTimeout(resolve, 1000 * seconds));
}

// A version that has just taken over may still be loading.
async function predict(file, name) {
  for (let tries = 1; ; tries += 1) {
    const body = new FormData();
    body.set("file", file, name);
    try {
      return await api(`${home}/predict?store=false&inline=overlay`, { method: "POST", body, timeoutMs: PREDICT_MS });
    } catch (error) {
      if (!BUSY.includes(error.status) || tries === TRIES) throw error;
      await wait(error.retryAfter ?? RETRY_S);
    }
  }
}

// The policy of the pages allows images of this server only: the drawing goes to a canvas.
async function draw(base64) {
  const bytes = Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
  const bitmap = await createImageBitmap(new Blob([bytes], { type: "image/png" }));
  const canvas = result.querySelector('[data-field="picture"]');
  canvas.width = bitmap.width;
  canvas.height = bitmap.height;
  canvas.getContext("2d").drawImage(bitmap, 0, 0);
}

async function inspect(name, load) {
  const mine = ++turn;
  byId("try-error").hidden = true;
  byId("try-said").textContent = t("script.teach.try.busy", { name });
  try {
    const answer = await predict(await load(), name);
    if (mine !== turn) return;
    await draw(answer.inline.overlay);
    fillResult(result, answer, name);
    result.querySelector('[data-field="version"]').textContent = t("script.teach.try.version", { version: answer.model.version });
  } catch (error) {
    if (mine !== turn) return;
    byId("try-error").textContent = `${name}: ${error.message}`;
    byId("try-error").hidden = false;
  }
  if (mine === turn) byId("try-said").textContent = "";
}

function tryFile(file) {
  if (!file || !product?.active) return;
  last = null;
  inspect(file.name, async () => file);
}

// An image of the product's dataset.
export function tryImage(image) {
  if (!section || !product?.active) return announce(t("script.teach.try.early"));
  last = image;
  return inspect(t("script.teach.try.own", { name: image.name }), async () => {
    const response = await fetch(image.links.image, { credentials: "same-origin" });
    if (!response.ok) throw new Error(t("script.failed", { status: response.status }));
    return response.blob();
  });
}

async function anyOf(label) {
  const { images } = await api(`${path}/images?label=${label}&excluded=false&limit=100`);
  return images[Math.floor(Math.random() * images.length)];
}

async function tryAny(label) {
  const image = await anyOf(label);
  if (image) await tryImage(image);
}

if (section) {
  onChosen("try-file", ([file]) => tryFile(file));
  for (const button of section.querySelectorAll("[data-try]")) {
    button.addEventListener("click", () => tryAny(button.dataset.try).catch((error) => announce(error.message)));
  }
  section.addEventListener("drop", (event) => {
    const [file] = event.dataTransfer.files;
    if (!file || !product?.active) return; // before the first version it is an image to learn from
    event.preventDefault();
    event.stopPropagation();
    document.getElementById("drop")?.classList.remove("over");
    tryFile(file);
  });
  onProduct((now) => {
    byId("try-buttons").hidden = !now.active;
    byId("try-help").hidden = Boolean(now.active) && !result.hidden;
    byId("try-help").textContent = t(now.active ? "script.teach.try.help" : "script.teach.try.early");
    section.querySelector('[data-try="defect"]').disabled = !now.images.defect;
    section.querySelector('[data-try="good"]').disabled = !now.images.good;
    const tookOver = active !== undefined && now.active && now.active !== active;
    active = now.active;
    if (!tookOver) return;
    announce(t("script.teach.took_over", { version: active }));
    // What the version says of one of the product's images is seen without a click.
    if (last) tryImage(last);
    else if (result.hidden) tryAny(now.images.defect ? "defect" : "good").catch(() => {});
  });
}
