// Confirmation of an act, with a reason for the audit log where one is asked for.
const byId = (name) => document.getElementById(`confirm${name}`);
const dialog = byId("");
byId("-no").addEventListener("click", () => dialog.close("no"));

// Asks for confirmation and resolves to true for yes.
export function confirmed(title, text, yes, wantsReason = false) {
  byId("-title").textContent = title;
  byId("-text").textContent = text;
  byId("-yes").textContent = yes;
  byId("-reason-field").hidden = !wantsReason;
  byId("-reason").required = wantsReason;
  byId("-reason").value = "";
  dialog.returnValue = "no";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true });
  });
}

// As `confirmed`, and resolves to the reason, or to null without a confirmation.
export async function confirmedReason(title, text, yes) {
  return (await confirmed(title, text, yes, true)) ? byId("-reason").value.trim() : null;
}
