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
