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
document.getElementById("new-product").addEventListener("submit", (event) => {
  create(name.value, event.submitter ?? event.target.querySelector("button"));
});
for (const button of document.querySelectorAll("[data-teach]")) {
  button.addEventListener("click", () => create(button.dataset.teach, button));
}
