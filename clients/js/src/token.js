// How a token goes to the server (see docs/wire.md, "Tokens").

/**
 * The subprotocols of a WebSocket that offers `own`. The server selects one of them, so there must be one beside the
 * token.
 *
 * @param {string[]} own
 * @param {string} token empty: none
 */
export function subprotocols(own, token) {
  return token ? [...(own.length ? own : ["relay.v1"]), `bearer.${token}`] : own;
}

/**
 * The headers of a request.
 *
 * @param {string} token
 * @returns {Record<string, string>}
 */
export const authorization = (token) => (token ? { authorization: `Bearer ${token}` } : {});
