// What is chosen is shown at once, or by Enter and a button where it is chosen by keys.
import { onChoice } from "./choice.js";

const form = document.getElementById("filter");
const button = form.querySelector("button");
document.documentElement.classList.add("scripted");
// After the browser's Back the page shows what it was made for, which may not be what was chosen on it last. It is
// told of its own loading, too, when somebody may have chosen already.
let chosen = false;
form.addEventListener("input", () => (chosen = true));
addEventListener("pageshow", (event) => {
  if (event.persisted || !chosen) form.reset();
});

function show() {
  const asked = new URLSearchParams();
  for (const [name, value] of new FormData(form)) if (value) asked.set(name, value);
  const query = asked.toString();
  location.assign(form.getAttribute("action") + (query ? `?${query}` : ""));
}

form.querySelectorAll("select").forEach((select) => onChoice(select, button, show));
form.addEventListener("submit", (event) => {
  event.preventDefault();
  show();
});
