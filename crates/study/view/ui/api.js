// What the server knows, as JSON.

/** The answer to a request; an Error with the server's message where there is none. */
export async function ask(path, parameters = {}, signal = undefined) {
  const query = new URLSearchParams(Object.entries(parameters).filter(([, v]) => v !== undefined && v !== null));
  const response = await fetch(`/api${path}${query.size ? `?${query}` : ""}`, { signal, cache: "no-store" });
  const body = await response.json().catch(() => ({ error: `the answer to ${path} is no JSON` }));
  if (!response.ok) throw Object.assign(new Error(body.error ?? response.statusText), { status: response.status });
  return body;
}

/** Requests of which only the latest counts: an earlier one is given up, and gives `undefined`. */
export function latest() {
  let controller;
  return async (path, parameters) => {
    controller?.abort();
    const own = new AbortController();
    controller = own;
    try {
      const answer = await ask(path, parameters, own.signal);
      return own.signal.aborted ? undefined : answer;
    } catch (error) {
      if (own.signal.aborted) return undefined;
      throw error;
    }
  };
}
