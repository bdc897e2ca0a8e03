// Talks to the node that served this page, with the token if one was given. Errors come as the API's one shape.

const TOKEN = "token";
export const token = () => sessionStorage.getItem(TOKEN) ?? "";
export const keepToken = (text) => (text ? sessionStorage.setItem(TOKEN, text) : sessionStorage.removeItem(TOKEN));

export class Refused extends Error {
  constructor(status, body) {
    const error = body?.error ?? {};
    super(error.what || `the node answered ${status}`);
    this.status = status;
    this.where = error.where ?? "";
    this.expected = error.expected ?? "";
    this.mend = error.mend ?? "";
    this.problems = body?.problems ?? [];
  }
}

export function headers(more = {}) {
  return token() ? { Authorization: `Bearer ${token()}`, ...more } : more;
}

// { status, body, etag }. Throws Refused for 400 and above, TypeError when nobody answers.
export async function call(method, url, body, more = {}) {
  const sent = body === undefined ? undefined : JSON.stringify(body);
  const type = sent === undefined ? {} : { "Content-Type": "application/json" };
  const answer = await fetch(url, {
    method, body: sent, cache: "no-store", credentials: "same-origin", headers: headers({ ...type, ...more }),
    signal: AbortSignal.timeout(20000),
  });
  const text = await answer.text();
  let found = null;
  try { found = text ? JSON.parse(text) : null; } catch { found = null; }
  if (!answer.ok) throw new Refused(answer.status, found);
  return { status: answer.status, body: found, etag: answer.headers.get("ETag") };
}

export const get = async (url) => (await call("GET", url)).body;

const absent = new Set();

// What an older node does not have, or this one may not tell us: null instead of an error, except 401, which is for
// the person. A path that is not there is not asked for again.
export async function maybe(url) {
  if (absent.has(url)) return null;
  try {
    return await get(url);
  } catch (error) {
    if (error instanceof Refused && error.status === 404) absent.add(url);
    if (error instanceof Refused && error.status !== 401) return null;
    throw error;
  }
}
