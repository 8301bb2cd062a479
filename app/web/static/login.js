// Exchanges the key for a session, then opens the requested page.
import { api } from "./api.js";

const form = document.getElementById("login");
const said = document.getElementById("login-error");

function goOn() {
  location.replace(form.dataset.next);
}

form?.addEventListener("submit", async (event) => {
  event.preventDefault();
  said.hidden = true;
  try {
    await api("/login", { method: "POST", body: { key: form.elements.key.value.trim() } });
    goOn();
  } catch (error) {
    said.textContent = error.message;
    said.hidden = false;
    form.elements.key.select();
  }
});

// Enabled only now: without this script the form would show the raw answer of the service.
if (form) form.querySelector("button").disabled = false;
// A link from another site arrives without the cookie; a request from this page sends it.
if (form) api("/v1/session").then(goOn, () => {});
