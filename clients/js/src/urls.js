/**
 * Where relay is, as a URL that others are relative to.
 *
 * @param {string | URL} url with or without a slash at the end; ws: and wss: are http: and https:
 * @returns {URL}
 */
export function baseOf(url) {
  const base = new URL(url, globalThis.document?.baseURI);
  base.protocol = base.protocol.replace("ws", "http");
  if (!base.pathname.endsWith("/")) base.pathname += "/";
  base.search = base.hash = "";
  return base;
}

/**
 * The address of the live dialect.
 *
 * @param {URL} base see baseOf()
 * @param {{ user: string, session: string, name: string }} whose
 * @returns {URL}
 */
export function socketOf(base, { user, session, name }) {
  const url = new URL(`ws/${encodeURIComponent(user)}`, base);
  url.protocol = base.protocol.replace("http", "ws"); // and https → wss
  if (session) url.searchParams.set("session_id", session);
  if (name) url.searchParams.set("name", name);
  return url;
}
