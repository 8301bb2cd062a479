// Requests to the service. Writes carry the session's token, and errors have readable messages.
import { has, t } from "./texts.js";

const csrf = document.querySelector('meta[name="csrf-token"]');
const keyId = document.querySelector('meta[name="key-id"]').content;
const TIMEOUT_MS = 30000;
const BY_PROXY = [502, 503, 504]; // in place of a server that does not answer

class ApiError extends Error {
  constructor(status, type, detail, retryAfter = null) {
    super(detail);
    this.status = status; // 0: no answer
    this.type = type;
    this.retryAfter = retryAfter; // seconds, if the service names a time
  }
}

// The error's title in the page's language, then the service's detail on this request.
function explain(status, problem) {
  const title = `problem.${problem?.type}`;
  if (has(title)) return `${t(title)}. ${problem.detail}`;
  return BY_PROXY.includes(status) ? t("script.offline") : t("script.failed", { status });
}

// timeoutMs: longer for slow requests.
async function send(path, { method = "GET", headers, body, keepalive, timeoutMs = TIMEOUT_MS } = {}) {
  const sent = { Accept: "application/json", ...headers };
  if (csrf.content && method !== "GET") sent["X-CSRF-Token"] = csrf.content;
  if (body !== undefined && !(body instanceof FormData) && !(body instanceof Blob)) {
    sent["Content-Type"] = "application/json";
    body = JSON.stringify(body);
  }
  const abort = new AbortController();
  const timer = setTimeout(() => abort.abort(), timeoutMs);
  try {
    const response = await fetch(path, { method, headers: sent, body, signal: abort.signal, keepalive, credentials: "same-origin" });
    return [response, await response.text()];
  } catch {
    // After a timeout the server may still be there, on a slow network.
    throw new ApiError(0, abort.signal.aborted ? "late" : "offline", t("script.offline"));
  } finally {
    clearTimeout(timer);
  }
}

// The page is not left, because it holds unsaved input. A band says what to do.
function showBand(name) {
  for (const one of ["expired", "another-key"]) document.getElementById(one).hidden = one !== name;
}

// Takes the token of a newer login and returns true, but never that of another key: input that was made with one
// key is not written in the name of another.
async function takeNewToken() {
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

// Returns the decoded JSON of an answer; null without a body.
export async function api(path, { etag = false, ...request } = {}) {
  const writes = (request.method ?? "GET") !== "GET";
  let [response, text] = await send(path, request);
  if (response.status === 403 && writes && (await takeNewToken())) [response, text] = await send(path, request);
  if (location.pathname !== "/login") {
    if (writes) showBand(response.status === 401 ? "expired" : null);
    else if (response.status === 401) location.assign("/login?next=" + encodeURIComponent(location.pathname + location.search));
  }
  const after = Number(response.headers.get("Retry-After")) || null;
  let answer = null;
  try {
    answer = text ? JSON.parse(text) : null;
  } catch {
    throw new ApiError(response.status, "internal", explain(response.status), after);
  }
  if (!response.ok) throw new ApiError(response.status, answer?.type, explain(response.status, answer), after);
  return etag ? { answer, etag: response.headers.get("ETag") } : answer;
}
