// Requests to the service: writes carry the session's token, and an error is one that people can read.
import { has, t } from "./texts.js";

export class ApiError extends Error {
  constructor(status, type, detail) {
    super(detail);
    this.status = status; // 0: there was no answer
    this.type = type;
  }
}

// What the error is, in the page's language, and what was wrong with this very request, as the service says it.
function explain(status, problem) {
  const title = `problem.${problem?.type}`;
  return has(title) ? `${t(title)}. ${problem.detail}` : t("script.failed", { status });
}

// Gives the decoded JSON of an answer, null where it has no body.
export async function api(path, { method = "GET", headers = {}, body, signal, etag = false, keepalive = false } = {}) {
  const token = document.querySelector('meta[name="csrf-token"]').content;
  const sent = { Accept: "application/json", ...headers };
  if (token && method !== "GET") sent["X-CSRF-Token"] = token;
  if (body !== undefined && !(body instanceof FormData) && !(body instanceof Blob)) {
    sent["Content-Type"] = "application/json";
    body = JSON.stringify(body);
  }
  let response;
  try {
    response = await fetch(path, { method, headers: sent, body, signal, keepalive, credentials: "same-origin" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(0, "offline", t("script.offline"));
  }
  if (response.status === 401 && location.pathname !== "/login") {
    location.assign("/login?next=" + encodeURIComponent(location.pathname + location.search));
  }
  const text = await response.text();
  let answer = null;
  try {
    answer = text ? JSON.parse(text) : null;
  } catch {
    throw new ApiError(response.status, "internal", t("script.failed", { status: response.status }));
  }
  if (!response.ok) {
    throw new ApiError(response.status, answer?.type, explain(response.status, answer));
  }
  return etag ? { answer, etag: response.headers.get("ETag") } : answer;
}
