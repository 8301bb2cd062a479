// Requests of the page: token, errors in words, sessions that ended.
import assert from "node:assert/strict";
import { beforeEach, test } from "node:test";
import { byId, metas, requests, visited, willAnswer, words } from "./page.mjs";
import { api } from "./static/api.js";

beforeEach(() => {
  metas["csrf-token"].content = "token";
  visited.length = 0;
  for (const band of ["expired", "another-key"]) byId(band).hidden = true;
});

test("a write carries the session's token and its body as JSON", async () => {
  willAnswer([201, { revision: 1 }]);
  assert.deepEqual(await api("/v1/x", { method: "POST", body: { verdict: "good" } }), { revision: 1 });
  const [{ headers, body }] = requests;
  assert.equal(headers["X-CSRF-Token"], "token");
  assert.equal(headers["Content-Type"], "application/json");
  assert.deepEqual(body, { verdict: "good" });
});

test("a read carries no token, and gives the ETag where it is wanted", async () => {
  willAnswer([200, { a: 1 }, { ETag: '"7"' }]);
  assert.deepEqual(await api("/v1/x", { etag: true }), { answer: { a: 1 }, etag: '"7"' });
  assert.equal(requests[0].headers["X-CSRF-Token"], undefined);
});

test("an answer without a body is null", async () => {
  willAnswer([204]);
  assert.equal(await api("/v1/x", { method: "DELETE" }), null);
});

test("a token of before a login is exchanged once and the write sent again", async () => {
  willAnswer([403, { type: "csrf" }], [200, { csrf_token: "newer", key_id: "mine" }], [200, { done: true }]);
  assert.deepEqual(await api("/v1/x", { method: "POST" }), { done: true });
  assert.deepEqual(requests.map((one) => one.path), ["/v1/x", "/v1/session", "/v1/x"]);
  assert.equal(requests[2].headers["X-CSRF-Token"], "newer");
});

test("nothing is written in the name of another key", async () => {
  willAnswer([403, { type: "csrf" }], [200, { csrf_token: "theirs", key_id: "another" }]);
  await assert.rejects(api("/v1/x", { method: "POST" }), { type: "another-key" });
  assert.equal(metas["csrf-token"].content, "token");
  assert.equal(byId("another-key").hidden, false);
});

test("a read without a session leads to the login, a write stays on the page", async () => {
  willAnswer([401, { type: "unauthenticated", detail: "Log in." }]);
  await assert.rejects(api("/v1/x"), { status: 401 });
  assert.deepEqual(visited, ["/login?next=%2F"]);
  willAnswer([401, { type: "unauthenticated", detail: "Log in." }]);
  await assert.rejects(api("/v1/x", { method: "POST" }), { status: 401 });
  assert.equal(visited.length, 1);
  assert.equal(byId("expired").hidden, false);
});

test("an error has words, a type and the time to wait", async () => {
  willAnswer([429, { type: "rate-limited", detail: "The limit is 60." }, { "Retry-After": "20" }]);
  await assert.rejects(api("/v1/x"), {
    status: 429,
    type: "rate-limited",
    retryAfter: 20,
    message: `${words["problem.rate-limited"]}. The limit is 60.`,
  });
  willAnswer([500, { type: "nobody-knows" }]);
  await assert.rejects(api("/v1/x"), { message: words["script.failed"].replace("{status}", "500") });
});

test("without a connection the status is 0", async () => {
  willAnswer();
  await assert.rejects(api("/v1/x"), { status: 0, type: "offline", message: words["script.offline"] });
});

test("a proxy's page about a server that is away says so", async () => {
  willAnswer([502, "<html>Bad Gateway</html>"]);
  await assert.rejects(api("/v1/x"), { status: 502, message: words["script.offline"] });
});
