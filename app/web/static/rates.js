// Overkill and escape rates of a category, estimated from reviews.
import { api } from "./api.js";
import { number, percent, t } from "./texts.js";

const turns = new WeakMap(); // by section, the number of requests: an outdated answer is ignored

// The rate of the audit sample if it is known, otherwise that of all reviews.
function describe(rates, name) {
  const ofAudit = (rates.audit?.[name].value ?? null) !== null;
  const rate = ofAudit ? rates.audit[name] : rates[name];
  if (rate.value === null) return t("script.rates.unknown");
  const text = t("script.rates.value", { value: percent(rate.value), low: percent(rate.low), high: percent(rate.high) });
  return t(ofAudit ? "script.rates.of_audit" : "script.rates.of_all", { rate: text });
}

export async function showRates(section, category) {
  const field = (name) => section.querySelector(`[data-rate="${name}"]`);
  const turn = (turns.get(section) ?? 0) + 1;
  turns.set(section, turn);
  try {
    const rates = await api(`/v1/models/${encodeURIComponent(category)}/rates`);
    if (turns.get(section) !== turn) return;
    const counts = Object.values(rates.decisions);
    const sum = (name, of = counts) => number(of.reduce((total, one) => total + one[name], 0), 0);
    for (const name of ["overkill", "escape"]) {
      field(name).textContent = describe(rates, name);
      field(name).title = rates[name].reason || "";
    }
    field("reviewed").textContent = t("script.rates.reviewed", {
      good: sum("reviewed_good"),
      defect: sum("reviewed_defect"),
      all: sum("inspections"),
    });
    if (rates.audit === null) return;
    const sample = Object.values(rates.audit.decisions);
    field("audit").textContent = t("script.rates.audit", {
      good: sum("reviewed_good", sample),
      defect: sum("reviewed_defect", sample),
      open: number(rates.audit.unreviewed, 0),
    });
    field("audit").hidden = field("audit").previousElementSibling.hidden = false;
  } catch (error) {
    if (turns.get(section) === turn) field("overkill").textContent = error.message;
  }
}
