// Sending of files: which failures are temporary.

// Statuses that are not the image's fault; it is sent again. 0: no answer.
export const BUSY = [0, 408, 429, 502, 503, 504];
export const RETRY_S = 5; // if the service names no time

// A file that was changed or removed cannot be sent; the failure looks like a lost connection.
export async function readable(file) {
  try {
    await file.arrayBuffer();
    return true;
  } catch {
    return false;
  }
}

// A list of refused files, kept until the user clears it. Returns a function that adds one; `detail` is a hint.
export function problemList() {
  const problems = document.getElementById("problems");
  const seen = document.getElementById("seen");
  seen.querySelector("button").addEventListener("click", () => {
    problems.textContent = "";
    seen.hidden = true;
  });
  return (name, text, detail = "") => {
    const item = document.createElement("li");
    item.textContent = `${name}: ${text}`;
    item.title = detail;
    problems.append(item);
    seen.hidden = false;
  };
}

// Files dropped anywhere on the page: an image dropped beside the field must not replace the page.
export function onDrop(field, take) {
  addEventListener("dragover", (event) => {
    event.preventDefault();
    field.classList.add("over");
  });
  addEventListener("dragleave", (event) => event.relatedTarget || field.classList.remove("over"));
  addEventListener("drop", (event) => {
    event.preventDefault();
    field.classList.remove("over");
    take(event.dataTransfer);
  });
}

// Files of a chooser; afterwards the same ones can be chosen again.
export function onChosen(id, take) {
  document.getElementById(id).addEventListener("change", (event) => {
    take([...event.target.files]);
    event.target.value = "";
  });
}
