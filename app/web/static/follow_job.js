// Follows a job by its events until it ends. A lost connection is made again by the browser, and after a refusal
// here; the server then sends the present state. A page in the background holds no connection: browsers allow few.
import { api } from "./api.js";

const RETRY_MS = 3000;
export const ENDED = ["succeeded", "failed", "cancelled"];

// onJob is called with each state, and onLines with new lines of the log. Returns a promise of the ended job.
export function followJob(id, onJob, onLines = () => {}) {
  return new Promise((resolve) => {
    let last = ""; // position in the log, which a new EventSource does not know
    let source = null;

    function close() {
      source?.close();
      source = null;
    }
    function connect() {
      if (source || document.hidden) return;
      source = new EventSource(`/v1/jobs/${id}/events${last && `?after=${last}`}`);
      source.addEventListener("lines", (event) => {
        last = event.lastEventId;
        onLines(JSON.parse(event.data).lines);
      });
      source.addEventListener("job", (event) => {
        const job = JSON.parse(event.data);
        onJob(job);
        if (!ENDED.includes(job.state)) return;
        close();
        document.removeEventListener("visibilitychange", onVisibility);
        resolve(job);
      });
      source.addEventListener("error", () => {
        if (source?.readyState !== EventSource.CLOSED) return;
        close();
        setTimeout(connect, RETRY_MS);
        api("/v1/session").catch(() => {}); // an ended session leads to the login
      });
    }
    function onVisibility() {
      if (document.hidden) close();
      else connect();
    }
    document.addEventListener("visibilitychange", onVisibility);
    connect();
  });
}
