// Swagger UI for the service's OpenAPI document. Requests use the browser's session, and writes carry its token.
// Without a session, enter a key under "Authorize".
const main = document.getElementById("reference");

async function addToken(request) {
  if (["GET", "HEAD", "OPTIONS"].includes((request.method ?? "GET").toUpperCase())) return request;
  const response = await fetch("/v1/session", { credentials: "same-origin" });
  const token = response.ok ? (await response.json()).csrf_token : null;
  if (token) request.headers["X-CSRF-Token"] = token;
  return request;
}

SwaggerUIBundle({
  domNode: main,
  url: main.dataset.document,
  deepLinking: true,
  docExpansion: "list",
  filter: true,
  displayRequestDuration: true,
  requestSnippetsEnabled: true,
  validatorUrl: null,
  requestInterceptor: addToken,
});
