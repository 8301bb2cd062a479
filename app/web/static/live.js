// The live feed, for as long as the page is looked at. A connection that is lost is made again; whoever listens is
// told each time, and then asks for what may have been missed.
import { api } from "./api.js";

const RETRY_MS = 3000;

export class Live {
  // handlers: open(), lost(), and one for each kind of event, by its name
  constructor(query, handlers) {
    this.query = query;
    this.handlers = handlers;
    // A page in the background would hold one of the few connections that a browser allows to a server.
    document.addEventListener("visibilitychange", () => (document.hidden ? this.close() : this.connect()));
    if (!document.hidden) this.connect();
  }

  connect() {
    this.close();
    const source = (this.source = new EventSource(`/v1/events${this.query}`));
    source.addEventListener("open", () => this.handlers.open());
    source.addEventListener("error", () => {
      this.handlers.lost();
      // A server that says no is not asked again by the browser; one that is away is.
      if (source.readyState !== EventSource.CLOSED || this.source !== source) return;
      this.timer = setTimeout(() => this.connect(), RETRY_MS);
      api("/v1/session").catch(() => {}); // where it is the session that has ended, this leads to the login
    });
    for (const kind of ["inspection", "review"]) {
      if (this.handlers[kind]) source.addEventListener(kind, (event) => this.handlers[kind](JSON.parse(event.data)));
    }
  }

  close() {
    clearTimeout(this.timer);
    if (this.source) this.source.close();
    this.source = null;
  }
}
