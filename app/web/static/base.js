// What every page does: times of the reader's place, the switches at the top, and what is read out.
import { api } from "./api.js";
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
const away = band.textContent;

export function showOffline(offline, text = away) {
  band.textContent = text;
  band.hidden = !offline;
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

document.getElementById("language").addEventListener("change", (event) => {
  remember("flowgauge_language", event.target.value);
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
    if (error.status !== 401) return showOffline(true, error.message);
  }
  return location.assign("/login");
});

addEventListener("offline", () => showOffline(true));
addEventListener("online", () => showOffline(false));
