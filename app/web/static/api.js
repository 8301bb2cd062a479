// Requests to the service: writes carry the session's token, and an error is one that people can read.
import { has, t } from "./texts.js";

const csrf = document.querySelector('meta[name="csrf-token"]');
const keyId = document.querySelector('meta[name="key-id"]').content;
const PATIENCE_MS = 30000;

class ApiError extends Error {
  constructor(status, type, detail, retryAfter = null) {
    super(detail);
    this.status = status; // 0: there was no answer
    this.type = type;
    this.retryAfter = retryAfter; // seconds, where the service says when to ask again
  }
}

// What the error is, in the page's language, and what was wrong with this very request, as the service says it.
function explain(status, problem) {
  const title = `problem.${problem?.type}`;
  return has(title) ? `${t(title)}. ${problem.detail}` : t("script.failed", { status });
}

// patienceMs: for what takes longer than an answer should.
async function send(path, { method = "GET", headers, body, keepalive, patienceMs = PATIENCE_MS } = {}) {
  const sent = { Accept: "application/json", ...headers };
  if (csrf.content && method !== "GET") sent["X-CSRF-Token"] = csrf.content;
  if (body !== undefined && !(body instanceof FormData) && !(body instanceof Blob)) {
    sent["Content-Type"] = "application/json";
    body = JSON.stringify(body);
  }
  const patience = new AbortController();
  const timer = setTimeout(() => patience.abort(), patienceMs);
  try {
    const response = await fetch(path, { method, headers: sent, body, signal: patience.signal, keepalive, credentials: "same-origin" });
    return [response, await response.text()];
  } catch {
    // Where it was given up here, the server may be there and the line be slow.
    throw new ApiError(0, patience.signal.aborted ? "late" : "offline", t("script.offline"));
  } finally {
    clearTimeout(timer);
  }
}

// What was to be written is still on the page: it is not left, and a band says what to do.
function showBand(name) {
  for (const one of ["expired", "another-key"]) document.getElementById(one).hidden = one !== name;
}

// A login since the page was loaded has another token. Gives whether the page has it now: not where it is that of
// another key, in whose name nothing is written that was entered before it came.
async function tookToken() {
  const [response, text] = await send("/v1/session");
  if (!response.ok) return false;
  const session = JSON.parse(text);
  if (!session.csrf_token || session.csrf_token === csrf.content) return false;
  if (session.key_id !== keyId) {
    showBand("another-key");
    throw new ApiError(response.status, "another-key", document.getElementById("another-key").textContent);
  }
  csrf.content = session.csrf_token;
  return true;
}

// Gives the decoded JSON of an answer, null where it has no body.
export async function api(path, { etag = false, ...request } = {}) {
  const writes = (request.method ?? "GET") !== "GET";
  let [response, text] = await send(path, request);
  if (response.status === 403 && writes && (await tookToken())) [response, text] = await send(path, request);
  if (location.pathname !== "/login") {
    if (writes) showBand(response.status === 401 ? "expired" : null);
    else if (response.status === 401) location.assign("/login?next=" + encodeURIComponent(location.pathname + location.search));
  }
  const after = Number(response.headers.get("Retry-After")) || null;
  let answer = null;
  try {
    answer = text ? JSON.parse(text) : null;
  } catch {
    throw new ApiError(response.status, "internal", t("script.failed", { status: response.status }), after);
  }
  if (!response.ok) throw new ApiError(response.status, answer?.type, explain(response.status, answer), after);
  return etag ? { answer, etag: response.headers.get("ETag") } : answer;
}
