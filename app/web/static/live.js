// The live event stream, while the page is visible. A lost connection is made again; the handlers then load what may
// have been missed.
import { api } from "./api.js";

const RETRY_MS = 3000;
const SILENT_MS = 40000; // the server sends its position every 15 seconds: a connection that misses two is dead

export class Live {
  // handlers: connecting(), open(), lost(), closed(), and one for each kind of event
  constructor(query, handlers) {
    this.query = query;
    this.handlers = handlers;
    // A hidden page would occupy one of the few connections that a browser opens to a server.
    document.addEventListener("visibilitychange", () => (document.hidden ? this.close() : this.connect()));
    if (!document.hidden) this.connect();
  }

  connect() {
    this.close();
    this.handlers.connecting();
    const source = (this.source = new EventSource(`/v1/events${this.query}`));
    this.watch();
    source.addEventListener("open", () => this.handlers.open());
    source.addEventListener("error", () => {
      this.handlers.lost();
      // The browser reconnects by itself, but not after a refusal.
      if (source.readyState !== EventSource.CLOSED || this.source !== source) return;
      this.timer = setTimeout(() => this.connect(), RETRY_MS);
      api("/v1/session").catch(() => {}); // an ended session leads to the login
    });
    for (const kind of ["position", "inspection", "review"]) {
      source.addEventListener(kind, (event) => {
        this.watch();
        this.handlers[kind]?.(JSON.parse(event.data));
      });
    }
  }

  // A hanging server or a pulled cable closes no connection: only silence reveals it.
  watch() {
    clearTimeout(this.silence);
    this.silence = setTimeout(() => {
      this.handlers.lost();
      this.connect();
    }, SILENT_MS);
  }

  close() {
    clearTimeout(this.timer);
    clearTimeout(this.silence);
    if (this.source) this.source.close();
    this.source = null;
    this.handlers.closed();
  }
}
