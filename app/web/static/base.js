// What every page does: times of the reader's place, the switches at the top, and what is read out.
import { api } from "./api.js";
import { onChoice } from "./choice.js";
import { localTimes, t } from "./texts.js";

const YEAR = 365 * 24 * 3600;

function remember(name, value) {
  document.cookie = `${name}=${value}; path=/; max-age=${YEAR}; SameSite=Lax`;
}

// Said by screen readers, whatever has the focus.
export function announce(text) {
  document.getElementById("announce").textContent = text;
}

const band = document.getElementById("offline");
const words = band.textContent;
const away = new Map(); // what is said of the server, by who found it out of reach

// The band stays until all who found the server out of reach have reached it: that the browser has a network again
// says nothing of the server.
export function showOffline(who, offline, text = words) {
  if (offline) away.set(who, text);
  else away.delete(who);
  const said = [...away.values()].pop();
  band.hidden = said === undefined;
  // It is read out whenever it is written.
  if (said !== undefined && said !== band.textContent) band.textContent = said;
}

// The browser asks whether to leave while there is something that would be lost.
export function guardUnsaved(unsaved) {
  addEventListener("beforeunload", (event) => {
    if (!unsaved()) return;
    event.preventDefault();
    event.returnValue = ""; // what browsers before 2024 wait for
  });
}

localTimes();

const language = document.getElementById("language");
onChoice(language, document.getElementById("speak"), () => {
  remember("flowgauge_language", language.value);
  location.reload();
});

document.getElementById("theme").addEventListener("click", () => {
  const root = document.documentElement;
  const dark = root.dataset.theme === "dark" || (root.dataset.theme === "auto" && matchMedia("(prefers-color-scheme: dark)").matches);
  root.dataset.theme = dark ? "light" : "dark";
  remember("flowgauge_theme", root.dataset.theme);
  announce(t(dark ? "script.theme.light" : "script.theme.dark"));
});

document.getElementById("leave")?.addEventListener("click", async () => {
  try {
    await api("/logout", { method: "POST" });
  } catch (error) {
    if (error.type === "another-key") return; // which is said already
    if (error.status !== 401) return showOffline("logout", true, error.message);
  }
  return location.assign("/login");
});

// The second click confirms: what is deleted does not come back.
for (const button of document.querySelectorAll(".confirm-deletion")) {
  button.addEventListener("click", async () => {
    if (!button.dataset.asked) {
      button.dataset.asked = "yes";
      button.textContent = t("script.deletion.sure");
      return;
    }
    button.disabled = true;
    try {
      await api(`/v1/deletions/${button.dataset.kind}/confirm`, { method: "POST" });
      location.reload();
    } catch (error) {
      button.disabled = false;
      announce(error.message);
      button.after(" ", error.message);
    }
  });
}

addEventListener("offline", () => showOffline("network", true));
addEventListener("online", () => ["network", "logout"].forEach((who) => showOffline(who, false)));
