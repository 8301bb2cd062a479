// The live feed, for as long as the page is looked at. A connection that is lost is made again; whoever listens is
// told each time, and then asks for what may have been missed.
import { api } from "./api.js";

const RETRY_MS = 3000;
const SILENT_MS = 40000; // the server tells its position every 15 seconds: a connection that brings two of them not is dead

export class Live {
  // handlers: connecting(), open(), lost(), closed(), and one for each kind of event, by its name
  constructor(query, handlers) {
    this.query = query;
    this.handlers = handlers;
    // A page in the background would hold one of the few connections that a browser allows to a server.
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
      // A server that says no is not asked again by the browser; one that is away is.
      if (source.readyState !== EventSource.CLOSED || this.source !== source) return;
      this.timer = setTimeout(() => this.connect(), RETRY_MS);
      api("/v1/session").catch(() => {}); // where it is the session that has ended, this leads to the login
    });
    for (const kind of ["position", "inspection", "review"]) {
      source.addEventListener(kind, (event) => {
        this.watch();
        this.handlers[kind]?.(JSON.parse(event.data));
      });
    }
  }

  // A server that stands still, or a cable that is pulled, ends no connection: nothing is all that is heard of it.
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
