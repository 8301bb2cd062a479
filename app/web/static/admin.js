// Keys: create one, whose secret is shown once, and revoke one. Upload of a version.
import { api } from "./api.js";
import { guardUnsaved } from "./base.js";
import { confirmed } from "./confirm.js";
import { t } from "./texts.js";

const byId = (name) => document.getElementById(name);
const UPLOAD_MS = 1800000;
const created = byId("created");
let left = false; // the shown secret was confirmed as kept

function complain(place, error) {
  place.textContent = error?.message ?? "";
  place.hidden = !error;
}

// Runs an action while a form's button is disabled.
async function act(button, place, action) {
  complain(place, null);
  button.disabled = true;
  try {
    await action();
  } catch (error) {
    complain(place, error);
  } finally {
    button.disabled = false;
  }
}

const form = byId("new-key");
form.addEventListener("submit", (event) => {
  const given = new FormData(form);
  const body = { name: given.get("name").trim(), role: given.get("role") };
  for (const name of ["expires_days", "requests_per_minute"]) if (given.get(name)) body[name] = Number(given.get(name));
  if (given.getAll("categories").length) body.categories = given.getAll("categories");
  act(event.submitter ?? form.querySelector("button"), byId("key-error"), async () => {
    const { key } = await api("/v1/keys", { method: "POST", body });
    byId("secret").value = key;
    created.hidden = false;
    form.hidden = true; // the next key comes after this one is kept
    byId("secret").focus();
    byId("secret").select();
  });
});
byId("copy").addEventListener("click", async () => {
  byId("secret").select();
  // Without TLS browsers offer no clipboard: the text is selected.
  await navigator.clipboard?.writeText(byId("secret").value).catch(() => {});
});
byId("kept").addEventListener("click", () => (left = true));
guardUnsaved(() => !created.hidden && !left);

for (const button of document.querySelectorAll("[data-revoke]")) {
  button.addEventListener("click", async () => {
    const values = { name: button.dataset.name };
    if (!(await confirmed(t("script.admin.revoke"), t("script.admin.revoke.text", values), t("script.admin.revoke")))) return;
    act(button, byId("key-error"), async () => {
      await api(`/v1/keys/${button.dataset.revoke}`, { method: "DELETE" });
      location.reload();
    });
  });
}

const upload = byId("upload-form");
const chosen = new URLSearchParams(location.search).get("category");
if (chosen) upload.elements.category.value = chosen;
upload.addEventListener("submit", () => {
  const category = upload.elements.category.value;
  const path = `/models/${encodeURIComponent(category)}/versions`;
  byId("upload-said").textContent = t("script.admin.uploading");
  act(upload.querySelector("button"), byId("upload-error"), async () => {
    try {
      const body = new Blob([upload.elements.archive.files[0]], { type: "application/zip" });
      const { version } = await api(`/v1${path}`, { method: "POST", body, headers: { "Content-Type": "application/zip" }, timeoutMs: UPLOAD_MS });
      const link = Object.assign(document.createElement("a"), { href: `${path}/${encodeURIComponent(version)}`, textContent: version });
      byId("upload-said").replaceChildren(t("script.admin.uploaded"), " ", link);
      upload.reset();
    } catch (error) {
      byId("upload-said").textContent = "";
      throw error;
    }
  });
});
