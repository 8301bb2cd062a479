// Overkill and escape rates of a category, estimated from reviews.
import { api } from "./api.js";
import { number, percent, t } from "./texts.js";

const turns = new WeakMap(); // by section, the number of requests: an outdated answer is ignored

function describe(rate) {
  if (rate.value === null) return t("script.rates.unknown");
  return t("script.rates.value", { value: percent(rate.value), low: percent(rate.low), high: percent(rate.high) });
}

export async function showRates(section, category) {
  const field = (name) => section.querySelector(`[data-rate="${name}"]`);
  const turn = (turns.get(section) ?? 0) + 1;
  turns.set(section, turn);
  try {
    const rates = await api(`/v1/models/${encodeURIComponent(category)}/rates`);
    if (turns.get(section) !== turn) return;
    const counts = Object.values(rates.decisions);
    const sum = (name) => number(counts.reduce((total, one) => total + one[name], 0), 0);
    for (const name of ["overkill", "escape"]) {
      field(name).textContent = describe(rates[name]);
      field(name).title = rates[name].reason || "";
    }
    field("reviewed").textContent = t("script.rates.reviewed", {
      good: sum("reviewed_good"),
      defect: sum("reviewed_defect"),
      all: sum("inspections"),
    });
  } catch (error) {
    if (turns.get(section) === turn) field("overkill").textContent = error.message;
  }
}
