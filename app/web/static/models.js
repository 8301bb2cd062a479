// Activation of a version and rollback, each after a confirmation.
import { api } from "./api.js";
import { announce } from "./base.js";
import { confirmed, confirmedReason } from "./confirm.js";
import { t } from "./texts.js";

export const passed = JSON.parse(document.getElementById("model").textContent);
export const home = `/v1/models/${encodeURIComponent(passed.category)}`;
const wrong = document.getElementById("model-error");

export function complain(place, error) {
  place.textContent = error.message;
  place.hidden = false;
  place.focus();
}

// Activates a version if the user confirms with a reason.
async function change(version, button, title, yes, done) {
  const values = { version, category: passed.category };
  const reason = await confirmedReason(t(title), t("script.models.activate.text", values), t(yes));
  if (!reason) return;
  wrong.hidden = true;
  button.disabled = true;
  button.setAttribute("aria-busy", "true");
  announce(t("script.models.busy"));
  try {
    const path = `${home}/versions/${encodeURIComponent(version)}:activate?${new URLSearchParams({ reason })}`;
    await api(path, { method: "POST", timeoutMs: 300000 }); // a version is loaded and checked before it serves
    done();
  } catch (error) {
    complain(wrong, error);
  } finally {
    button.disabled = false;
    button.removeAttribute("aria-busy");
  }
}

export function activate(version, button, done = () => location.reload()) {
  return change(version, button, "script.models.activate", "script.models.activate.yes", done);
}

for (const button of document.querySelectorAll("[data-activate]")) {
  button.addEventListener("click", () => activate(button.dataset.activate, button));
}

for (const button of document.querySelectorAll("[data-delete]")) {
  button.addEventListener("click", async () => {
    const values = { version: button.dataset.delete, category: passed.category };
    const title = t("script.models.delete");
    if (!(await confirmed(title, t("script.models.delete.text", values), title))) return;
    button.disabled = true;
    try {
      await api(`${home}/versions/${encodeURIComponent(values.version)}`, { method: "DELETE" });
      location.reload();
    } catch (error) {
      button.disabled = false;
      complain(wrong, error);
    }
  });
}

// Activates the version that the page shows as the previous one: by now a rollback might select another.
const back = document.getElementById("rollback");
back?.addEventListener("click", () =>
  change(back.dataset.version, back, "script.models.rollback", "script.models.rollback.yes", () => location.reload()),
);
