// Creation of a product, for a new category or one that was trained elsewhere.
import { api } from "./api.js";

const wrong = document.getElementById("new-error");

async function create(name, button) {
  wrong.hidden = true;
  button.disabled = true;
  try {
    await api("/v1/products", { method: "POST", body: { name } });
    location.assign(`/products/${encodeURIComponent(name)}`);
  } catch (error) {
    wrong.textContent = error.message;
    wrong.hidden = false;
    wrong.focus();
    button.disabled = false;
  }
}

const name = document.getElementById("new-name");
name.addEventListener("input", () => (name.value = name.value.toLowerCase().replaceAll(" ", "-")));
const form = document.getElementById("new-product");
form.addEventListener("submit", (event) => {
  event.preventDefault();
  create(name.value, event.submitter ?? event.target.querySelector("button"));
});
// The page has them disabled: sent before this script runs, a name would be lost.
for (const field of form.elements) field.disabled = false;
if (name.autofocus) name.focus();
for (const button of document.querySelectorAll("[data-teach]")) {
  button.addEventListener("click", () => create(button.dataset.teach, button));
}
