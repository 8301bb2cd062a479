// Follows a job by its events until it ends. A lost connection is made again by the browser, and after a refusal
// here; the server then sends the present state.
import { api } from "./api.js";

const RETRY_MS = 3000;
const ENDED = ["succeeded", "failed", "cancelled"];

// onJob is called with each state, and onLines with new lines of the log. Returns a promise of the ended job.
export function followJob(id, onJob, onLines = () => {}) {
  return new Promise((resolve) => {
    let last = ""; // position in the log, which a new EventSource does not know
    function connect() {
      const source = new EventSource(`/v1/jobs/${id}/events${last && `?after=${last}`}`);
      source.addEventListener("lines", (event) => {
        last = event.lastEventId;
        onLines(JSON.parse(event.data).lines);
      });
      source.addEventListener("job", (event) => {
        const job = JSON.parse(event.data);
        onJob(job);
        if (!ENDED.includes(job.state)) return;
        source.close();
        resolve(job);
      });
      source.addEventListener("error", () => {
        if (source.readyState !== EventSource.CLOSED) return;
        setTimeout(connect, RETRY_MS);
        api("/v1/session").catch(() => {}); // an ended session leads to the login
      });
    }
    connect();
  });
}
