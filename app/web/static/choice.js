// Choice from a list. With a pointer it applies at once. Arrow keys pass through all options, so with the keyboard it
// applies by Enter, or by a button that appears.
const KEPT = "flowgauge.focus";

function nameOf(select) {
  return select.id || select.name;
}

// The next page restores the focus.
function keepFocus(select) {
  try {
    sessionStorage.setItem(KEPT, nameOf(select));
  } catch {
    // storage is disabled
  }
}

function giveFocus(select) {
  try {
    if (sessionStorage.getItem(KEPT) !== nameOf(select)) return;
    sessionStorage.removeItem(KEPT);
    select.focus();
  } catch {
    // see above
  }
}

const changed = new WeakSet(); // forms, or lists without a form, with a choice that is not applied yet

// `made` is called when the choice applies. It returns false if no other page follows.
export function onChoice(select, button, made) {
  const whole = select.form ?? select;
  let byKeys = false;
  let last = false; // true if this list of the form was changed
  const make = () => {
    changed.delete(whole);
    if (made() !== false && byKeys) keepFocus(select);
  };
  select.addEventListener("pointerdown", () => (byKeys = false));
  select.addEventListener("keydown", (event) => {
    byKeys = true;
    if (event.key !== "Enter" || !changed.has(whole)) return;
    event.preventDefault();
    make();
  });
  select.addEventListener("change", () => {
    changed.add(whole);
    last = true;
    if (!byKeys) return make();
    button.hidden = false;
    button.classList.remove("without-script");
  });
  if (button.type === "button") button.addEventListener("click", make);
  select.form?.addEventListener("submit", () => last && keepFocus(select));
  giveFocus(select);
}
