// The audit sample of a category: its share and error rates, and new thresholds from it.
import { api } from "./api.js";
import { announce } from "./base.js";
import { confirmed } from "./confirm.js";
import { home, complain, passed } from "./models.js";
import { showRates } from "./rates.js";
import { number, percent, t } from "./texts.js";

const byId = (name) => document.getElementById(`audit-${name}`);
const form = byId("form");
const CALIBRATION_MS = 1800000; // 2000 images

// Runs an action with the given reason; the action returns the text to show.
async function act(change) {
  const reason = byId("reason").value.trim();
  if (!reason) return byId("reason").focus();
  const buttons = [...form.querySelectorAll("button")];
  byId("error").hidden = true;
  byId("said").textContent = "";
  buttons.forEach((button) => (button.disabled = true));
  try {
    byId("said").textContent = await change(reason);
    announce(byId("said").textContent);
    byId("reason").value = "";
  } catch (error) {
    complain(byId("error"), error);
  } finally {
    buttons.forEach((button) => (button.disabled = false));
  }
}

form?.addEventListener("submit", () => {
  act(async (reason) => {
    const body = { audit_share: JSON.parse(byId("share").value), reason };
    await api(`${home}/thresholds`, { method: "PATCH", headers: { "If-Match": "*" }, body });
    return t("script.models.audit.saved");
  });
});

byId("calibrate")?.addEventListener("click", () =>
  act(async (reason) => {
    const { etag } = await api(`${home}/calibrations`, { etag: true });
    const title = t("script.models.audit.calibrate");
    if (!(await confirmed(title, t("script.models.audit.calibrate.text"), t("script.models.audit.calibrate.yes")))) return "";
    announce(t("script.models.audit.busy"));
    const query = new URLSearchParams({ audit: "true", reason });
    const since = byId("since").value;
    if (since) query.set("from", new Date(`${since}T00:00`).toISOString()); // in the browser's time zone
    const made = await api(`${home}/calibrations?${query}`, { method: "POST", headers: { "If-Match": etag }, timeoutMs: CALIBRATION_MS });
    dispatchEvent(new Event("calibration-changed"));
    const { reject, achievable_fpr } = made.threshold;
    const values = { n: number(made.pictures, 0), score: number(reject, 3), average: percent(achievable_fpr) };
    return [t("script.models.audit.calibrated", values), ...made.warnings].join(" ");
  }),
);

showRates(document.getElementById("audit"), passed.category);
