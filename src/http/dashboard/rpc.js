/** Talking to the target: JSON-RPC over HTTP, and the session that a token opens. */

/** An error that the target answered with. */
export class RpcError extends Error {
  /** @param {number} code @param {string} message */
  constructor(code, message) {
    super(message);
    this.name = 'RpcError';
    this.code = code;
  }
}

/** The target wants a token first. */
export class LoginNeeded extends Error {}

/**
 * @param {string} path
 * @param {unknown} body
 */
async function post(path, body) {
  /** @type {Response} */
  let response;
  try {
    response = await fetch(path, {
      method: 'POST',
      headers: { 'Content-Type': 'application/json' },
      body: JSON.stringify(body),
    });
  } catch {
    throw new Error('No connection to the target');
  }
  if (response.status === 401 && path !== '/login') throw new LoginNeeded('A token is needed');
  return response;
}

let lastId = 0;

/**
 * Calls a method of the target. Rejects with {@link RpcError}, {@link LoginNeeded}, or an Error if there is no connection.
 *
 * @param {string} method
 * @param {object} [params]
 * @returns {Promise<any>} the result
 */
export async function call(method, params) {
  lastId += 1;
  const request = { jsonrpc: '2.0', id: lastId, method, ...(params !== undefined && { params }) };
  const response = await post('/rpc', request);
  /** @type {{ result?: unknown, error?: string | { code: number, message: string } }} */
  const answer = await response.json().catch(() => ({ error: `HTTP ${response.status}` }));
  if (typeof answer.error === 'string') throw new Error(answer.error);
  if (answer.error !== undefined) throw new RpcError(answer.error.code, answer.error.message);
  return answer.result;
}

/** @returns {Promise<{ tokenNeeded: boolean, open: boolean }>} rejects if there is no connection */
export async function session() {
  return (await fetch('/session')).json();
}

/** @param {string} token rejects with an Error that says what is wrong */
export async function login(token) {
  const response = await post('/login', { token });
  if (!response.ok) {
    throw new Error(response.status === 401 ? 'Wrong token' : `HTTP ${response.status}`);
  }
}

export async function logout() {
  await post('/logout', {});
}
