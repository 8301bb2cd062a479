// The filter applies at once, or with the keyboard by Enter or a button.
import { onChoice } from "./choice.js";

const form = document.getElementById("filter");
const button = form.querySelector("button");
document.documentElement.classList.add("scripted");
// After Back the form must match the page, not the last choice. The event also fires on load, when the user may
// already have chosen.
let chosen = false;
form.addEventListener("input", () => (chosen = true));
addEventListener("pageshow", (event) => {
  if (event.persisted || !chosen) form.reset();
});

function show() {
  const given = new URLSearchParams();
  for (const [name, value] of new FormData(form)) if (value) given.set(name, value);
  const query = given.toString();
  location.assign(form.getAttribute("action") + (query ? `?${query}` : ""));
}

form.querySelectorAll("select").forEach((select) => onChoice(select, button, show));
form.addEventListener("submit", (event) => {
  event.preventDefault();
  show();
});
