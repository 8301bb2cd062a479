// Photographs with the camera of the browser's machine.
import { t } from "./texts.js";

const byId = (id) => document.getElementById(id);
const dialog = byId("camera");
const view = byId("camera-view");
const shutter = byId("shutter");
let stream = null;
let taken = 0;
let take = null;

function fail(key) {
  byId("camera-error").textContent = t(`script.teach.camera.${key}`);
  byId("camera-error").hidden = false;
  view.hidden = true;
}

// Browsers give a camera to secure pages only: HTTPS, or the machine itself.
export const hasCamera = Boolean(navigator.mediaDevices?.getUserMedia);

export async function openCamera(taker) {
  take = taker;
  taken = 0;
  byId("camera-said").textContent = "";
  byId("camera-error").hidden = true;
  view.hidden = false;
  dialog.showModal();
  if (!hasCamera) return fail("insecure");
  try {
    const video = { facingMode: "environment", width: { ideal: 1920 }, height: { ideal: 1080 } };
    const opened = await navigator.mediaDevices.getUserMedia({ video });
    if (!dialog.open) return opened.getTracks().forEach((track) => track.stop());
    stream = opened;
    view.srcObject = stream;
  } catch (error) {
    fail(error.name === "NotAllowedError" ? "denied" : error.name === "NotFoundError" ? "none" : "failed");
  }
}

view.addEventListener("loadeddata", () => {
  shutter.disabled = false;
  shutter.focus(); // Space presses it
});

shutter.addEventListener("click", () => {
  const canvas = document.createElement("canvas");
  canvas.width = view.videoWidth;
  canvas.height = view.videoHeight;
  canvas.getContext("2d").drawImage(view, 0, 0);
  canvas.toBlob((blob) => {
    taken += 1;
    const name = `camera-${new Date().toISOString().replace(/[:.]/g, "-")}.png`;
    take(new File([blob], name, { type: "image/png" }));
    byId("camera-said").textContent = t("script.teach.camera.taken", { n: taken });
  }, "image/png");
});

dialog.addEventListener("close", () => {
  stream?.getTracks().forEach((track) => track.stop());
  stream = view.srcObject = null;
  shutter.disabled = true;
});
byId("camera-close").addEventListener("click", () => dialog.close());
