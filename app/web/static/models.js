// Activation of a version and rollback, each after a confirmation.
import { api } from "./api.js";
import { announce } from "./base.js";
import { confirmed } from "./confirm.js";
import { t } from "./texts.js";

export const passed = JSON.parse(document.getElementById("model").textContent);
export const home = `/v1/models/${encodeURIComponent(passed.category)}`;
const wrong = document.getElementById("model-error");

export function complain(place, error) {
  place.textContent = error.message;
  place.hidden = false;
  place.focus();
}

async function change(path, button, done) {
  wrong.hidden = true;
  button.disabled = true;
  button.setAttribute("aria-busy", "true");
  announce(t("script.models.busy"));
  try {
    await api(path, { method: "POST", timeoutMs: 300000 }); // a version is loaded and checked before it serves
    done();
  } catch (error) {
    complain(wrong, error);
  } finally {
    button.disabled = false;
    button.removeAttribute("aria-busy");
  }
}

// Activates a version if the user confirms.
export async function activate(version, button, done = () => location.reload()) {
  const values = { version, category: passed.category };
  if (await confirmed(t("script.models.activate"), t("script.models.activate.text", values), t("script.models.activate.yes"))) {
    await change(`${home}/versions/${encodeURIComponent(version)}:activate`, button, done);
  }
}

for (const button of document.querySelectorAll("[data-activate]")) {
  button.addEventListener("click", () => activate(button.dataset.activate, button));
}

const back = document.getElementById("rollback");
back?.addEventListener("click", async () => {
  const values = { version: back.dataset.version, category: passed.category };
  if (await confirmed(t("script.models.rollback"), t("script.models.activate.text", values), t("script.models.rollback.yes"))) {
    // Activate the confirmed version: by now a rollback might select another one.
    await change(`${home}/versions/${encodeURIComponent(back.dataset.version)}:activate`, back, () => location.reload());
  }
});
