// Behaviour of every page: local times, the controls at the top, announcements for screen readers.
import { api } from "./api.js";
import { onChoice } from "./choice.js";
import { localTimes, t } from "./texts.js";

const YEAR = 365 * 24 * 3600;

function remember(name, value) {
  document.cookie = `${name}=${value}; path=/; max-age=${YEAR}; SameSite=Lax`;
}

// Read out by screen readers, whatever has the focus.
export function announce(text) {
  document.getElementById("announce").textContent = text;
}

const band = document.getElementById("offline");
const words = band.textContent;
const unreachable = new Map(); // messages, by the part of the page that cannot reach the server

// The band stays until every part that lost the server has reached it again. That the browser is online says
// nothing about the server.
export function showOffline(who, offline, text = words) {
  if (offline) unreachable.set(who, text);
  else unreachable.delete(who);
  const message = [...unreachable.values()].pop();
  band.hidden = message === undefined;
  // Every write is read out.
  if (message !== undefined && message !== band.textContent) band.textContent = message;
}

// The browser asks for confirmation before unsaved input is lost.
export function guardUnsaved(unsaved) {
  addEventListener("beforeunload", (event) => {
    if (!unsaved()) return;
    event.preventDefault();
    event.returnValue = ""; // needed by browsers before 2024
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
    if (error.type === "another-key") return; // already shown
    if (error.status !== 401) return showOffline("logout", true, error.message);
  }
  return location.assign("/login");
});

// The second click confirms: a deletion cannot be undone.
for (const button of document.querySelectorAll(".confirm-deletion")) {
  button.addEventListener("click", async () => {
    if (!button.dataset.confirming) {
      button.dataset.confirming = "yes";
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
