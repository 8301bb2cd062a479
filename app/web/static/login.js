// Exchanges the key for a session, and goes on to the page that was wanted.
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

// Who enters a key before this is loaded would be shown what the service says of a form.
if (form) form.querySelector("button").disabled = false;
// Who follows a link from elsewhere comes without the cookie, which goes along from our own pages alone.
if (form) api("/v1/session").then(goOn, () => {});
